//! Merging on a device: the bytes of a merge without one, whatever its memory does.

mod model;
mod naive;
mod rows;

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mergecore::dtype::{Dtype, Real};
use mergecore::error::{Error, Result};
use mergecore::run::device::{Bench, Device, Merged};
use mergecore::run::{Spectrum, Watch};
use model::family::{family, save, Make};
use model::{files, finish_on, plan, to_disk, Run, RUN};
use serde_json::{json, Value as Json};

type Room = Box<dyn Fn(usize) -> u64 + Send + Sync>;

/// It adds task vectors, and looks at each piece once before.
struct Adder {
    lanes: usize,
    chunk: u64,
    /// Elements that a piece may have.
    room: Room,
    /// Pieces asked for so far.
    asked: AtomicUsize,
    begun: Mutex<Vec<String>>,
    fails: bool,
}

impl Adder {
    fn new(chunk: u64, room: impl Fn(usize) -> u64 + Send + Sync + 'static) -> Adder {
        Adder { lanes: 3, chunk, room: Box::new(room), asked: AtomicUsize::new(0), begun: Mutex::default(), fails: false }
    }
}

impl Device for &'static Adder {
    fn lanes(&self) -> usize {
        self.lanes
    }

    fn begin(&self, _: usize, tensor: &Json, _: &Arc<AtomicBool>) -> Result<Option<Box<dyn Bench>>> {
        if tensor["method"] != "task_arithmetic" || tensor["wide"] == true {
            return Ok(None);
        }
        self.begun.lock().unwrap().push(tensor["name"].as_str().unwrap().to_string());
        let stored = tensor["stored"].as_array().unwrap().iter().map(|name| Dtype::from_name(name.as_str().unwrap()).unwrap()).collect();
        let elements = tensor["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product();
        let weights = tensor["parameters"]["weight"].as_array().unwrap().iter().map(|w| w.as_f64().unwrap() as f32).collect();
        Ok(Some(Box::new(Adding {
            device: self,
            stored,
            elements,
            weights,
            seen: 0,
            has_seen: false,
            buffer: Vec::new(),
            given: Vec::new(),
            out: Vec::new(),
        })))
    }
}

struct Adding {
    device: &'static Adder,
    stored: Vec<Dtype>,
    elements: u64,
    weights: Vec<f32>,
    seen: u64,
    has_seen: bool,
    buffer: Vec<u8>,
    given: Vec<Vec<f32>>,
    out: Vec<u8>,
}

impl Adding {
    fn has_room(&mut self) -> bool {
        let asked = self.device.asked.fetch_add(1, Ordering::SeqCst);
        let count = self.given.first().map_or(0, Vec::len) as u64;
        let fits = count <= (self.device.room)(asked);
        if !fits {
            self.given.clear();
        }
        fits
    }
}

impl Bench for Adding {
    fn chunk(&self) -> u64 {
        self.device.chunk
    }

    fn wanted(&mut self) -> Result<Option<Range<u64>>> {
        Ok((!self.has_seen).then_some(0..self.elements))
    }

    fn buffer(&mut self, bytes: usize) -> Result<Option<&mut [u8]>> {
        self.buffer = vec![0xAA; bytes];
        Ok(Some(&mut self.buffer))
    }

    fn give(&mut self, source: usize) -> Result<Option<()>> {
        if source == 0 {
            self.given.clear();
        }
        assert_eq!(self.given.len(), source, "the base first, then the models");
        let mut values = vec![0.0; self.buffer.len() / self.stored[source].size()];
        f32::decode(self.stored[source], &self.buffer, &mut values);
        self.given.push(values);
        Ok(Some(()))
    }

    fn observe(&mut self, first: u64) -> Result<Option<()>> {
        if !self.has_room() {
            return Ok(None);
        }
        assert_eq!(self.seen, first, "pieces of a pass come in order");
        self.seen += self.given[0].len() as u64;
        Ok(Some(()))
    }

    fn conclude(&mut self) -> Result<()> {
        assert_eq!(self.seen, self.elements, "all was seen");
        self.has_seen = true;
        Ok(())
    }

    fn merge(&mut self, _: u64) -> Result<Option<Merged<'_>>> {
        if self.device.fails {
            return Err(Error::run("the device is on fire"));
        }
        if !self.has_room() {
            return Ok(None);
        }
        let (base, models) = self.given.split_first().unwrap();
        let mut sum = vec![0f32; base.len()];
        for (model, weight) in models.iter().zip(&self.weights) {
            sum.iter_mut().zip(model.iter().zip(base)).for_each(|(sum, (x, base))| *sum += weight * (x - base));
        }
        self.out = sum.iter().flat_map(|x| x.to_le_bytes()).collect();
        let unfinite = vec![[0; 2]; self.given.len()];
        Ok(Some(Merged { values: &self.out, unfinite }))
    }

    fn solve(&mut self, _: usize) -> Result<Option<Merged<'_>>> {
        unreachable!("it takes no matrices")
    }

    fn spectra(&mut self) -> Result<Vec<Spectrum>> {
        Ok(Vec::new())
    }
}

fn recipe() -> Json {
    json!({
        "merge_method": "task_arithmetic", "base_model": "base", "onto": "a", "models": [{"model": "a"}, {"model": "b"}],
        "parameters": {"weight": [0.5, 0.25], "lambda": 1.5, "normalize": false},
    })
}

fn on(device: Adder, dir: &Path, out: &str) -> (Result<Json>, &'static Adder) {
    let device: &'static Adder = Box::leak(Box::new(device));
    let plan = plan(dir, &recipe()).unwrap();
    (finish_on(Some(&device), &plan, &dir.join(out), RUN, &Watch::default()), device)
}

#[test]
fn a_device_makes_the_bytes_that_the_processor_makes_whatever_its_memory_does() {
    let (family, dir) = (family(Make::Plain), tempfile::tempdir().unwrap());
    save(&family, dir.path());
    let report = to_disk(dir.path(), &recipe(), &dir.path().join("cpu"), Run { threads: 1, ..RUN }).unwrap();
    let expected = files(&dir.path().join("cpu"));
    let rooms: [(&str, u64, Room); 5] = [
        ("enough", u64::MAX / 2, Box::new(|_| u64::MAX)),
        ("a block at a time", 1, Box::new(|_| u64::MAX)),
        ("less than is asked for", u64::MAX / 2, Box::new(|_| 20_000)),
        ("none at all", u64::MAX / 2, Box::new(|_| 0)),
        ("less and less, until nothing is left", 40_000, Box::new(|asked| 60_000 / (1 + asked as u64 / 4))),
    ];
    for (number, (how, chunk, room)) in rooms.into_iter().enumerate() {
        let out = format!("out-{number}");
        let (told, device) = on(Adder::new(chunk, room), dir.path(), &out);
        let told = told.unwrap_or_else(|e| panic!("{how}: {}", e.message));
        assert!(files(&dir.path().join(&out)) == expected, "{how}");
        for key in ["delta_norm", "delta_norm_rounded", "bytes_read", "nan"] {
            assert_eq!(told[key], report[key], "{how}: {key}");
        }
        let begun = device.begun.lock().unwrap();
        assert!(begun.contains(&"model.layers.0.mlp.up_proj.weight".to_string()), "{how}: {begun:?}");
    }
}

#[test]
fn what_a_device_says_is_what_the_merge_says() {
    let (family, dir) = (family(Make::Plain), tempfile::tempdir().unwrap());
    save(&family, dir.path());
    let error = on(Adder { fails: true, ..Adder::new(1 << 20, |_| u64::MAX) }, dir.path(), "out").0.expect_err("it fails");
    assert_eq!(error.message, "the device is on fire");
    assert!(!dir.path().join("out").exists());
    // The same merge without the device goes on with what is there.
    to_disk(dir.path(), &recipe(), &dir.path().join("out"), RUN).unwrap();
    to_disk(dir.path(), &recipe(), &dir.path().join("cpu"), RUN).unwrap();
    assert!(files(&dir.path().join("out")) == files(&dir.path().join("cpu")));
}
