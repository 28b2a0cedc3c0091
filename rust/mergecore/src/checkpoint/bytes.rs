//! Where are a tensor's bytes? In a file, or in memory that a caller lends.
//!
//! Files are read by position into a small buffer, not memory-mapped. Measured on three 2.2 GB files in the page cache (two threads,
//! task arithmetic): mapped with populate 1.05–1.8 s, mapped with plain faults 1.4–6.6 s, positional reads of 32 KB 1.2–1.8 s: the same
//! within noise. Positional reads hold no pages (6 MB resident instead of 18), and a file that shrinks under them is an error, where
//! a map would kill the process with SIGBUS.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::dtype::Dtype;
use crate::error::{Error, Result};

/// Bytes that many threads may read at once.
pub trait Bytes: Send + Sync {
    /// Fills `out` from `offset` on, or says which file failed.
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()>;

    /// Says that a range will be read soon.
    fn will_need(&self, _offset: u64, _bytes: u64) {}

    /// The type of the numbers that come out, of a tensor that counts as `stored`: what is computed while it is read is not rounded yet.
    fn yields(&self, stored: Dtype) -> Dtype {
        stored
    }

    /// Bytes that are held in memory from the first read on, until `rest`.
    fn held(&self) -> u64 {
        0
    }

    /// Says that a tensor was read to its end.
    fn rest(&self) {}
}

/// An input file that stays open for the whole run.
pub struct InputFile {
    pub path: PathBuf,
    file: File,
    pub length: u64,
    /// Nanoseconds since 1970.
    pub modified: i128,
}

impl InputFile {
    pub fn open(path: &Path) -> Result<InputFile> {
        let file = File::open(path).map_err(|e| Error::opening(path, &e))?;
        let (length, modified) = stat(&file).map_err(|e| Error::opening(path, &e))?;
        Ok(InputFile { path: path.to_path_buf(), file, length, modified })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// An error if the file is no longer what it was when it was opened.
    pub fn check_unchanged(&self) -> Result<()> {
        let now = stat(&self.file).map_err(|e| Error::io(&self.path, "reading", &e))?;
        if now == (self.length, self.modified) {
            return Ok(());
        }
        Err(Error::run(format!(
            "{}: the file changed while it was being read: remove the unfinished output and merge again",
            self.path.display()
        )))
    }
}

fn stat(file: &File) -> std::io::Result<(u64, i128)> {
    let meta = file.metadata()?;
    Ok((meta.len(), meta.mtime() as i128 * 1_000_000_000 + meta.mtime_nsec() as i128))
}

#[cfg(target_os = "linux")]
impl InputFile {
    /// Whether the byte at `offset` can be had without waiting for a disk. (Advice on a megabyte that is in the page cache goes through all
    /// of its pages: 3 % of the time that `compare` takes. The system is called by number, as glibc has a name for it only since 2.26.)
    fn is_cached(&self, offset: u64) -> bool {
        let mut byte = 0u8;
        let into = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let (low, high) = (offset as libc::c_ulong, (offset >> 32) as libc::c_ulong); // the high half is for systems of 32 bits
                                                                                      // SAFETY: the descriptor is open as long as `self.file` is, and one byte is written to where there is one.
        unsafe { libc::syscall(libc::SYS_preadv2, self.file.as_raw_fd(), &raw const into, 1, low, high, libc::RWF_NOWAIT) == 1 }
    }
}

impl Bytes for InputFile {
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(out, offset).map_err(|e| Error::io(&self.path, "reading", &e))
    }

    fn will_need(&self, offset: u64, bytes: u64) {
        #[cfg(target_os = "linux")]
        if bytes > 0 && !(self.is_cached(offset) && self.is_cached(offset + bytes - 1)) {
            // SAFETY: the descriptor is open as long as `self.file` is; advice cannot touch memory.
            unsafe {
                libc::posix_fadvise(self.file.as_raw_fd(), offset as i64, bytes as i64, libc::POSIX_FADV_WILLNEED);
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (offset, bytes, self.file.as_raw_fd());
    }
}

/// Memory that the caller keeps alive and unchanged.
pub struct Lent<'a>(pub &'a [u8]);

impl Bytes for Lent<'_> {
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        out.copy_from_slice(&self.0[offset as usize..offset as usize + out.len()]);
        Ok(())
    }
}
