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

/// Lets everything else run first: this thread and those that it starts get what the others leave.
///
/// # Errors
/// What the system says; the priority is as it was, or only partly lowered, then.
pub fn lowest_priority() -> io::Result<()> {
    // Not SCHED_IDLE: a process that may get no time at all while others work can hold a lock of the store meanwhile.
    // SAFETY: the call takes plain numbers and changes nothing but the scheduling of this process.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives what was freed back to the system. glibc keeps it in the arena of the thread that asked for it, where the
/// threads that ask next need not look: with each generation that comes and goes the process would hold more.
pub fn give_back_memory() {
    // SAFETY: the call takes a plain number, and locks each arena while it works on it.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Keeps blocks of 128 KiB and more out of the arenas of glibc, so that they go back to the system as soon as they are
/// freed. That is glibc's own threshold, until it raises it, up to 32 MiB, by what it sees freed; then the vectors of a
/// generation lie among small blocks that live on, and what they leave is never whole enough to be given back.
pub fn keep_large_blocks_apart() {
    // SAFETY: the call takes plain numbers, and what it says of blocks to come holds for every thread.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
    }
}

/// Ends the process without what others do at its end: a library whose threads are at work may wait there for ever, or
/// take from under them what they use.
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: nothing of ours is left to be flushed, and the call does not return.
    unsafe { libc::_exit(code) }
}

/// Bytes that this user may still write to the disk that a folder is on.
///
/// # Errors
/// What the system says.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    Ok(disk_bytes(folder)?.0)
}

/// Bytes that this user may still write to the disk that a folder is on, and bytes of that disk.
///
/// # Errors
/// What the system says.
pub fn disk_bytes(folder: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(folder.as_os_str().as_bytes())?;
    // SAFETY: the path ends with a zero, and the structure is plain numbers that the call fills in.
    let found = unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(path.as_ptr(), &raw mut found) != 0 {
            return Err(io::Error::last_os_error());
        }
        found
    };
    #[allow(clippy::useless_conversion, reason = "these numbers have other sizes on other systems")]
    let [free, all, block] = [u64::from(found.f_bavail), u64::from(found.f_blocks), u64::from(found.f_frsize)];
    Ok((free.saturating_mul(block), all.saturating_mul(block)))
}

/// A tensor over part of another's memory, wherever that lies: elements from `offset` on, in `shape`.
///
/// The memory is not copied, so that what is written through one is read through the other. The view does not keep
/// `tensor` alive: its owner must drop every view, and every binding that holds one, before it.
///
/// # Errors
/// A view that reaches beyond the tensor, or what the runtime says.
pub(crate) fn tensor_view(
    tensor: &ort::value::DynTensor,
    allocator: &ort::memory::Allocator,
    offset: usize,
    shape: &[i64],
) -> ort::Result<ort::value::DynValue> {
    use ort::AsPointer as _;

    let element = *tensor.data_type();
    let whole = tensor.shape().num_elements();
    let length = shape.iter().try_fold(1_usize, |length, &size| length.checked_mul(usize::try_from(size).ok()?));
    let fits = length.and_then(|length| length.checked_add(offset)).is_some_and(|end| end <= whole);
    let (Some(length), true) = (length, fits) else {
        return Err(ort::Error::new(format!("view {shape:?} at {offset} of a tensor of {whole} elements")));
    };
    let too_large = || ort::Error::new("a tensor of this type has no views");
    let bytes = element.byte_size(length).ok_or_else(too_large)?;
    let start = element.byte_size(offset).ok_or_else(too_large)?;
    let info = allocator.memory_info();
    let mut value = std::ptr::null_mut();
    // SAFETY: the range lies within the tensor's memory, as checked above, and `info` tells where that memory is. The
    // value that comes back is owned by the caller alone and does not own the memory.
    unsafe {
        let status = (ort::api().CreateTensorWithDataAsOrtValue)(
            info.ptr(),
            tensor.data_ptr().cast_mut().byte_add(start),
            bytes,
            shape.as_ptr(),
            shape.len(),
            element.into(),
            &raw mut value,
        );
        ort::Error::result_from_status(status)?;
        let value = std::ptr::NonNull::new(value).ok_or_else(|| ort::Error::new("no tensor came back"))?;
        Ok(ort::value::DynValue::from_ptr(value, Some(allocator)))
    }
}
