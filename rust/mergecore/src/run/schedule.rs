//! Who does what next?
//!
//! Jobs are opened in order and cut into tiles; every thread takes the next tile of the earliest job that has one left. A job may have several
//! stages (a pass for its threshold, then the merge): the thread that finishes a stage's last tile concludes it, and the next stage's tiles
//! come first again, so that a second reading finds the pages still cached. While a stage waits for its last tiles, later jobs go on.
//! Files are thus read and written nearly in order, whatever the sizes of the tensors and the number of threads.
//!
//! rayon was tried first: splitting the list of jobs in halves makes the threads start far apart in the files.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use crate::error::{Error, Result};

/// A piece of work with tiles that may be done in any order, by any thread.
pub trait Task<Desk>: Send + Sync {
    /// How many tiles the present stage has; at least one.
    fn tiles(&self) -> usize;
    fn work(&self, tile: usize, desk: &mut Desk) -> Result<()>;
    /// All tiles of the stage are done: concludes it. True if another stage follows.
    fn conclude(&self) -> Result<bool>;
}

struct Active<'a, Desk> {
    task: Arc<dyn Task<Desk> + 'a>,
    next: usize,
    tiles: usize,
    unfinished: usize,
}

struct Queue<'a, Desk> {
    active: VecDeque<Active<'a, Desk>>,
    /// Jobs not yet opened.
    next: usize,
    /// Being opened or concluded by some thread just now.
    busy: usize,
    error: Option<Error>,
}

/// A panic becomes an error: a thread that died in silence would leave the others waiting for its tile.
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Error::run(format!("mergecore has a bug, please report it: {}", words.unwrap_or("a thread panicked"))))
    })
}

/// Opens `count` tasks in order and does all their work on `threads` threads.
pub fn drive<'a, Desk>(
    count: usize,
    open: &(dyn Fn(usize) -> Result<Arc<dyn Task<Desk> + 'a>> + Sync),
    threads: usize,
    desk: &(dyn Fn() -> Desk + Sync),
    cancelled: &AtomicBool,
) -> Result<()> {
    let queue = Mutex::new(Queue { active: VecDeque::new(), next: 0, busy: 0, error: None });
    let changed = Condvar::new();
    // Open jobs hold thresholds' counts: more of them than threads would only cost memory.
    let window = threads + 1;
    let worker = || {
        let mut desk = desk();
        let mut guard = queue.lock().expect("workers do not panic while holding the queue");
        loop {
            if cancelled.load(Ordering::Relaxed) {
                guard.error.get_or_insert_with(Error::interrupted);
            }
            if guard.error.is_some() {
                changed.notify_all();
                return;
            }
            if let Some(active) = guard.active.iter_mut().find(|active| active.next < active.tiles) {
                let (task, tile) = (active.task.clone(), active.next);
                active.next += 1;
                drop(guard);
                let result = guarded(|| task.work(tile, &mut desk));
                guard = queue.lock().expect("workers do not panic while holding the queue");
                if let Err(e) = result {
                    guard.error.get_or_insert(e);
                    continue;
                }
                let place = guard.active.iter().position(|a| Arc::ptr_eq(&a.task, &task)).expect("a task stays until it is done");
                guard.active[place].unfinished -= 1;
                if guard.active[place].unfinished == 0 {
                    drop(guard);
                    let result = guarded(|| task.conclude());
                    guard = queue.lock().expect("workers do not panic while holding the queue");
                    let place = guard.active.iter().position(|a| Arc::ptr_eq(&a.task, &task)).expect("a task stays until it is done");
                    match result {
                        Ok(true) => {
                            let tiles = task.tiles();
                            let active = &mut guard.active[place];
                            (active.next, active.tiles, active.unfinished) = (0, tiles, tiles);
                        }
                        Ok(false) => drop(guard.active.remove(place)),
                        Err(e) => drop(guard.error.get_or_insert(e)),
                    }
                    changed.notify_all();
                }
            } else if guard.next < count && guard.active.len() + guard.busy < window {
                let job = guard.next;
                guard.next += 1;
                guard.busy += 1;
                drop(guard);
                let opened = guarded(|| open(job));
                guard = queue.lock().expect("workers do not panic while holding the queue");
                guard.busy -= 1;
                match opened {
                    Ok(task) => {
                        let tiles = task.tiles();
                        guard.active.push_back(Active { task, next: 0, tiles, unfinished: tiles });
                    }
                    Err(e) => drop(guard.error.get_or_insert(e)),
                }
                changed.notify_all();
            } else if guard.active.is_empty() && guard.busy == 0 {
                return;
            } else {
                // Woken by time as well, so that Ctrl-C is heard while another thread is deep in a tile.
                let wait = std::time::Duration::from_millis(50);
                guard = changed.wait_timeout(guard, wait).expect("workers do not panic while holding the queue").0;
            }
        }
    };
    std::thread::scope(|scope| {
        // Where the system gives no more threads, those that there are do the work.
        let _ = (1..threads).try_for_each(|_| std::thread::Builder::new().spawn_scoped(scope, worker).map(drop));
        worker();
    });
    match queue.into_inner().expect("the workers are gone").error {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
