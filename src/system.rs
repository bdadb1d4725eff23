//! The few calls that need `unsafe`, audited in one file.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

/// Maps a file for reading.
///
/// # Errors
/// Whatever opening or mapping the file says.
pub fn map_file(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: files of checkpoints and generations are replaced by rename, never written in place, so that the pages
    // behind a mapping do not change while it lives.
    unsafe { Mmap::map(&file) }
}

/// Opens an LMDB environment.
///
/// # Errors
/// Whatever LMDB says.
pub fn open_lmdb(
    options: &heed::EnvOpenOptions<heed::WithoutTls>,
    folder: &Path,
) -> heed::Result<heed::Env<heed::WithoutTls>> {
    // SAFETY: the folder is opened at most once a process (heed keeps a registry and refuses a second time), and no
    // flag that weakens LMDB's locking or its copy-on-write pages is set.
    unsafe { options.open(folder) }
}

/// Makes a write past the file-size limit (`ulimit -f`) fail with an error instead of ending the process.
pub fn ignore_file_size_signal() {
    // SAFETY: SIG_IGN is a valid disposition for SIGXFSZ, and no handler of ours is replaced.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}
