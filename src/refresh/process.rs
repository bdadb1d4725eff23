//! The training process of a job, from its start to its end.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{Error, LOG_FILE, SETTINGS_FILE};
use crate::generation::replace_file;
use crate::settings::Settings;

/// A process that was asked to stop is killed after this; it gives itself less.
const GRACE: Duration = Duration::from_secs(25);

/// Between two looks at the memory of a process.
const LOOK: Duration = Duration::from_secs(1);

/// What the process of a job may take; a process that takes more is killed, and its job can be gone on with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Bytes of memory that it holds; none is no limit.
    pub memory: Option<u64>,
    /// How long it may say nothing; none is no limit.
    pub silence: Option<Duration>,
}

impl From<&Settings> for Limits {
    fn from(settings: &Settings) -> Self {
        let set = |value: u64| (value > 0).then_some(value);
        Self {
            memory: set(settings.refresh_memory).map(|mebibytes| mebibytes.saturating_mul(1 << 20)),
            silence: set(settings.refresh_stall).map(Duration::from_secs),
        }
    }
}

impl Limits {
    /// Why a process has to be killed, for people; none where it keeps within its limits. What cannot be measured is no
    /// reason.
    fn broken(&self, process: Option<u32>, heard: Instant) -> Option<String> {
        if let Some(silence) = self.silence.filter(|silence| heard.elapsed() > *silence) {
            let seconds = silence.as_secs();
            return Some(format!(
                "the training process said nothing for {seconds} s and was killed; resume the job, with a higher \
                 refresh_stall where it only takes long"
            ));
        }
        let held = process.and_then(held_bytes)?;
        let allowed = self.memory.filter(|allowed| held > *allowed)?;
        Some(format!(
            "the training process held {} MiB of memory and was killed: refresh_memory is {}; resume the job with a higher \
             limit, or start one with a smaller batch",
            held >> 20,
            allowed >> 20
        ))
    }
}

/// Bytes of memory that a process holds; none where the system does not tell. Mapped files, such as the store, are not
/// counted: the system takes those pages back when it needs them.
fn held_bytes(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let kibibytes = |name: &str| -> Option<u64> {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let own = kibibytes("RssAnon:")?.checked_add(kibibytes("RssShmem:")?)?;
    own.checked_mul(1024)
}

/// How a process ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// Why it was killed, where it went beyond a limit.
    pub(super) broke: Option<String>,
}

/// What is wanted of a job that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    GoOn,
    Cancel,
    Stop,
}

/// Writes the settings of a job into its folder: what the process needs, and no keys.
pub(super) fn write_settings(folder: &Path, settings: &Settings) -> Result<(), Error> {
    let file = folder.join(SETTINGS_FILE);
    let bare = Settings { search_key: None, write_key: None, admin_key: None, ..settings.clone() };
    let text = serde_json::to_vec_pretty(&bare)?;
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    Ok(replace_file(&file, &text)?)
}

/// The file of this program. One that was replaced while it runs has no name any more, and the new one of that name may
/// be of another version.
fn own_program() -> std::io::Result<PathBuf> {
    let named = std::env::current_exe()?;
    let unnamed = Path::new("/proc/self/exe");
    Ok(if !named.exists() && unnamed.exists() { unnamed.to_path_buf() } else { named })
}

/// Starts the process of a job.
pub(super) fn start(data: &Path, id: &str, settings: &Settings) -> Result<Child, Error> {
    let program = own_program().map_err(Error::io(Path::new("the program's own file")))?;
    let log = data.join("jobs").join(id).join(LOG_FILE);
    let told = std::fs::File::options().create(true).append(true).open(&log).map_err(Error::io(&log))?;
    let mut command = Command::new(&program);
    command.args(["train", "--json", "--job", id, "--data"]).arg(data);
    command.args(["--log-filter", &settings.log_filter]);
    // The settings are in the job's folder, those of the environment among them.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ANCED_") {
            command.env_remove(name);
        }
    }
    if settings.refresh_threads > 0 {
        command.env("RAYON_NUM_THREADS", settings.refresh_threads.to_string());
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(told).kill_on_drop(true);
    command.spawn().map_err(Error::io(&program))
}

/// Hears what the process says to its end; asks it to stop where that is wished, kills it where it goes beyond a limit.
pub(super) async fn watch(
    mut child: Child,
    wishes: &mut watch::Receiver<Wish>,
    limits: Limits,
    mut hear: impl FnMut(&str),
) -> std::io::Result<Ended> {
    let mut input = child.stdin.take();
    let mut lines = child.stdout.take().map(|output| BufReader::new(output).lines());
    let mut deadline = None;
    let (mut broke, mut heard) = (None, Instant::now());
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while let Some(output) = &mut lines {
        tokio::select! {
            line = output.next_line() => match line {
                Ok(Some(line)) => {
                    heard = Instant::now();
                    hear(&line);
                }
                Ok(None) | Err(_) => lines = None,
            },
            wish = wishes.wait_for(|wish| *wish != Wish::GoOn), if input.is_some() => {
                if wish.is_ok() {
                    deadline = Some(Instant::now() + GRACE);
                }
                input = None;
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                child.start_kill()?;
                deadline = None;
            }
            _ = looks.tick(), if broke.is_none() => {
                broke = limits.broken(child.id(), heard);
                if broke.is_some() {
                    child.start_kill()?;
                }
            }
        }
    }
    Ok(Ended { status: child.wait().await?, broke })
}

/// How a process ended that did not say `done`, for people: its last words, or what the system says.
pub(super) fn last_words(data: &Path, id: &str, status: ExitStatus) -> String {
    let text = std::fs::read(data.join("jobs").join(id).join(LOG_FILE)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let said = text.lines().last().and_then(|line| line.strip_prefix("anced: "));
    match said {
        Some(said) if status.code().is_some() => said.to_owned(),
        _ => format!("the training process ended by itself ({status})"),
    }
}
