//! How settings are read.

use super::*;

#[test]
fn devices_are_read_as_written() {
    for text in ["auto", "cpu", "cuda:0", "cuda:3"] {
        assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
    }
    assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
    for text in ["", "gpu", "cuda:", "cuda:x", "cpu:1"] {
        assert!(text.parse::<Device>().is_err(), "{text}");
    }
}

#[test]
fn a_switch_needs_no_value() {
    use clap::Parser as _;
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        train: TrainArgs,
    }
    let read = |flags: &[&str]| Line::try_parse_from(["anced"].iter().chain(flags)).map(|line| line.train);
    for (flags, wanted) in [
        (&[][..], None),
        (&["--dropout"], Some(true)),
        (&["--dropout=true"], Some(true)),
        (&["--dropout=false"], Some(false)),
    ] {
        assert_eq!(read(flags).unwrap().dropout, wanted, "{flags:?}");
    }
    let both = read(&["--mine-once", "--dropout", "--seed", "3"]).unwrap();
    assert_eq!((both.mine_once, both.dropout, both.seed), (Some(true), Some(true), Some(3)));
    assert!(read(&["--dropout", "true"]).is_err(), "a value follows `=`");
    assert!(read(&["--dropout=maybe"]).is_err());
    assert!(read(&["--seed"]).is_err(), "other flags need one");
}

#[test]
fn flags_overrule_the_file_and_unknown_keys_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("anced.toml");
    std::fs::write(&file, "connectivity = 24\nexpansion_add = 64\ndevice = \"cpu\"\n").unwrap();
    let flags = IndexArgs { connectivity: Some(32), ..IndexArgs::default() };
    let settings = Settings::load(Some(&file), &[&flags]).unwrap();
    assert_eq!((settings.connectivity, settings.expansion_add, settings.device), (32, 64, Device::Cpu));

    std::fs::write(&file, "conectivity = 24\n").unwrap();
    let error = Settings::load(Some(&file), &[]).unwrap_err().to_string();
    assert!(error.contains("conectivity"), "{error}");

    std::fs::write(&file, "connectivity = 1\n").unwrap();
    let error = Settings::load(Some(&file), &[]).unwrap_err().to_string();
    assert!(error.contains("2 to 512"), "{error}");

    for chunks in ["0", "257"] {
        std::fs::write(&file, format!("chunks = {chunks}\n")).unwrap();
        let error = Settings::load(Some(&file), &[]).unwrap_err().to_string();
        assert!(error.contains("chunks") && error.contains("1 to 256"), "{error}");
    }

    for share in ["-0.1", "1.5", "nan"] {
        std::fs::write(&file, format!("feedback_dev_share = {share}\n")).unwrap();
        let error = Settings::load(Some(&file), &[]).unwrap_err().to_string();
        assert!(error.contains("feedback_dev_share") && error.contains("0 to 1"), "{error}");
    }

    for tolerance in ["nan", "inf"] {
        std::fs::write(&file, format!("tolerance = {tolerance}\n")).unwrap();
        let error = Settings::load(Some(&file), &[]).unwrap_err().to_string();
        assert!(error.contains("tolerance") && error.contains("a number"), "{error}");
    }
}
