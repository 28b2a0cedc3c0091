//! Is every tile of every stage done once, in time, by whoever is free; and does a run end when something goes wrong?

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Mutex};
use std::time::Duration;

use mergecore::error::{Error, Kind, Result};
use mergecore::run::schedule::{drive, Task};
use proptest::prelude::*;

/// A job of several stages, each with so many tiles, that writes down what is done with it.
struct Job<'a> {
    stages: Vec<usize>,
    stage: AtomicUsize,
    done: Mutex<Vec<Vec<usize>>>,
    open: &'a AtomicUsize,
    act: &'a (dyn Fn(usize, usize) -> Result<()> + Sync),
}

impl Task<usize> for Job<'_> {
    fn tiles(&self) -> usize {
        self.stages[self.stage.load(Ordering::SeqCst)]
    }

    fn work(&self, tile: usize, desk: &mut usize) -> Result<()> {
        *desk += 1;
        let stage = self.stage.load(Ordering::SeqCst);
        (self.act)(stage, tile)?;
        self.done.lock().unwrap()[stage].push(tile);
        Ok(())
    }

    fn conclude(&self) -> Result<bool> {
        let stage = self.stage.load(Ordering::SeqCst);
        let mut done = self.done.lock().unwrap()[stage].clone();
        done.sort_unstable();
        assert_eq!(done, (0..self.stages[stage]).collect::<Vec<_>>(), "a stage ends before its tiles, or one was done twice");
        if stage + 1 < self.stages.len() {
            self.stage.store(stage + 1, Ordering::SeqCst);
            return Ok(true);
        }
        self.open.fetch_sub(1, Ordering::SeqCst);
        Ok(false)
    }
}

/// Drives jobs of these stages: the result, how many were concluded, and how many were open at a time.
fn run(jobs: &[Vec<usize>], threads: usize, act: &(dyn Fn(usize, usize) -> Result<()> + Sync)) -> (Result<()>, usize, usize) {
    let (open, most, opened) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let make = |i: usize| -> Result<Arc<dyn Task<usize> + '_>> {
        most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        opened.lock().unwrap().push(i);
        let done = Mutex::new(vec![Vec::new(); jobs[i].len()]);
        Ok(Arc::new(Job { stages: jobs[i].clone(), stage: AtomicUsize::new(0), done, open: &open, act }))
    };
    let result = drive(jobs.len(), &make, threads, &|| 0, &AtomicBool::new(false));
    let mut opened = opened.into_inner().unwrap();
    opened.sort_unstable();
    assert!(opened.windows(2).all(|pair| pair[0] < pair[1]), "a job was opened twice");
    let concluded = opened.len() - open.into_inner();
    (result, concluded, most.into_inner())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_tile_is_done_once(jobs in prop::collection::vec(prop::collection::vec(1..9usize, 1..4), 0..12), threads in 1..5usize) {
        let (result, concluded, open) = run(&jobs, threads, &|_, _| Ok(()));
        prop_assert!(result.is_ok());
        prop_assert_eq!(concluded, jobs.len());
        // Open jobs hold memory.
        prop_assert!(open <= threads + 1, "{} are open on {} threads", open, threads);
    }

    #[test]
    fn an_error_ends_the_run(jobs in prop::collection::vec(prop::collection::vec(2..9usize, 2..4), 2..12), threads in 1..5usize) {
        let after = AtomicUsize::new(0);
        let (result, concluded, _) = run(&jobs, threads, &|stage, tile| {
            after.fetch_add(1, Ordering::SeqCst);
            if (stage, tile) == (1, 1) { Err(Error::run("no more")) } else { Ok(()) }
        });
        prop_assert_eq!(result.unwrap_err().message, "no more");
        prop_assert!(concluded < jobs.len());
    }
}

#[test]
fn a_cancelled_run_stops_soon() {
    let cancelled = AtomicBool::new(false);
    let open = AtomicUsize::new(0);
    let act = |_: usize, tile: usize| {
        cancelled.fetch_or(tile == 10, Ordering::SeqCst);
        assert!(tile < 10 + 4, "work goes on");
        Ok(())
    };
    let make = |_: usize| -> Result<Arc<dyn Task<usize> + '_>> {
        Ok(Arc::new(Job { stages: vec![1000], stage: AtomicUsize::new(0), done: Mutex::new(vec![Vec::new()]), open: &open, act: &act }))
    };
    let error = drive(1, &make, 3, &|| 0, &cancelled).unwrap_err();
    assert_eq!(error.kind, Kind::Interrupted);
}

#[test]
fn a_panic_ends_the_run_instead_of_hanging_it() {
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let result =
            std::panic::catch_unwind(|| run(&[vec![3], vec![3]], 3, &|_, tile| if tile == 1 { panic!("a bug") } else { Ok(()) }).0);
        let _ = sender.send(!matches!(result, Ok(Ok(()))));
    });
    let failed = ended.recv_timeout(Duration::from_secs(5)).expect("the run hangs when a tile panics");
    assert!(failed, "a panic went unnoticed");
}
