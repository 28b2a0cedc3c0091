//! Who multiplies? Threads for work that is cut into fixed pieces, so that their number can't be seen in the result.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::sync::Arc;
use std::time::Duration;

use faer::Par;
use rayon::prelude::*;

use crate::error::{Error, Result};

/// Into how many pieces faer cuts its loops, whatever the number of threads: its results depend on the former (its issue 274), and not on
/// the latter.
const PIECES: usize = 8;

/// Threads, and how they are told to stop.
pub struct Workers<'w> {
    pool: Arc<rayon::ThreadPool>,
    cancelled: &'w AtomicBool,
}

impl<'w> Workers<'w> {
    pub fn new(threads: usize, cancelled: &'w AtomicBool) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("mergecore-{i}")).build();
        let pool = pool.map_err(|e| Error::run(format!("{threads} threads could not be started ({e}): give fewer, --threads 1")))?;
        Ok(Workers { pool: Arc::new(pool), cancelled })
    }

    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    pub fn check_cancelled(&self) -> Result<()> {
        match self.cancelled.load(Ordering::Relaxed) {
            true => Err(Error::interrupted()),
            false => Ok(()),
        }
    }

    /// Does `work` for each number below `count`, in any order; what it makes comes in the order of the numbers.
    pub fn each<T: Send>(&self, count: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
        let one = |i: usize| {
            self.check_cancelled()?;
            work(i)
        };
        self.pool.install(|| (0..count).into_par_iter().with_max_len(1).map(one).collect())
    }

    /// Does what cannot be interrupted on a thread of its own, which is left to itself when the user wants to stop: it owns all it works on.
    pub fn long<T: Send + 'static>(&self, work: impl FnOnce(Par) -> T + Send + 'static) -> Result<T> {
        self.check_cancelled()?;
        let (send, receive) = channel();
        let pool = self.pool.clone();
        let thread = move || pool.install(|| drop(send.send(work(Par::rayon(PIECES)))));
        let started = std::thread::Builder::new().name("mergecore-solver".into()).spawn(thread);
        started.map_err(|e| Error::run(format!("a thread could not be started ({e})")))?;
        loop {
            match receive.recv_timeout(Duration::from_millis(50)) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Timeout) => self.check_cancelled()?,
                Err(RecvTimeoutError::Disconnected) => panic!("faer panicked"),
            }
        }
    }
}
