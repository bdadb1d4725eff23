//! TREC runs and qrels: what was read is written, by score, and read again as the same.

use anced::corpus::Split;
use anced::evaluation::{read_qrels, read_run, write_run};

use super::scratch;

pub fn run(input: &[u8]) {
    let folder = scratch();
    let file = folder.path().join("file");
    std::fs::write(&file, input).unwrap();
    if let Ok(mut rankings) = read_run(&file) {
        let again = folder.path().join("again");
        write_run(&again, "tag", &rankings).unwrap();
        let mut written = read_run(&again).unwrap();
        for ranking in rankings.iter_mut().chain(&mut written) {
            ranking.documents.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
        assert_eq!(written, rankings);
    }
    if let Ok(judgments) = read_qrels(&file, Split::Test) {
        assert!(judgments.iter().all(|judgment| !judgment.query.is_empty() && !judgment.document.is_empty()));
    }
}
