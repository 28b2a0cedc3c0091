//! `mergecore._mergecore`: what Python may call. Everything here converts, enters the engine by its one door, and computes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mergecore::checkpoint::{opened, Checkpoint};
use mergecore::error::Result;
use mergecore::kernels::mask;
use mergecore::layout::{self, Layout};
use mergecore::methods::METHODS;
use mergecore::modifiers::MODIFIERS;
use mergecore::recipe::Recipe;
use mergecore::run::device::Device;
use mergecore::run::disk::Order;
use mergecore::run::{self, Limits, Watch};
use mergecore::text::{compression, frames, languages, loops, scripts};
use mergecore::write::documents;
use mergecore::{plan, report, verify as verifier, write};
use pyo3::prelude::*;
use serde_json::json;

mod convert;
mod device;
mod enter;
mod stream;

use convert::{Arrays, Inputs, Rows, SideFiles};
use device::PyDevice;
use enter::{enter, raise};

#[pyfunction]
fn registry() -> String {
    json!(METHODS.iter().map(|spec| spec.json()).collect::<Vec<_>>()).to_string()
}

#[pyfunction]
fn modifiers() -> String {
    json!(MODIFIERS.iter().map(|spec| spec.json()).collect::<Vec<_>>()).to_string()
}

#[pyfunction]
#[pyo3(signature = (recipe, from_file = false))]
fn recipe_models(py: Python, recipe: &str, from_file: bool) -> PyResult<Vec<String>> {
    Recipe::parse(recipe, from_file).map(|recipe| recipe.references()).map_err(|e| raise(py, e))
}

/// Models that several plans read, each opened once.
#[pyclass(frozen)]
#[derive(Default)]
struct Opened(opened::Opened);

#[pymethods]
impl Opened {
    #[new]
    fn new() -> Opened {
        Opened::default()
    }
}

/// A merge, decided and checked, with nothing written.
#[pyclass(frozen)]
struct Plan {
    plan: plan::Plan<'static>,
    layout: Layout,
    limits: Limits,
}

#[pymethods]
impl Plan {
    #[new]
    #[pyo3(signature = (recipe, locations, *, adapters = None, vocabulary = None, opened = None, from_file = false, threads = None, max_memory = None, shard_size = None, tile = None))]
    #[allow(clippy::too_many_arguments)] // the Python signature
    fn new(
        py: Python,
        recipe: String,
        locations: BTreeMap<String, PathBuf>,
        adapters: Option<BTreeMap<String, PathBuf>>,
        vocabulary: Option<Rows>,
        opened: Option<Py<Opened>>,
        from_file: bool,
        threads: Option<usize>,
        max_memory: Option<u64>,
        shard_size: Option<u64>,
        tile: Option<u64>,
    ) -> PyResult<Plan> {
        let make = || -> Result<Plan> {
            let recipe = Recipe::parse(&recipe, from_file)?;
            let own = Opened::default();
            let opened = opened.as_ref().map_or(&own, Py::get);
            let open = |reference: String| {
                let path = locations.get(&reference).cloned().unwrap_or_else(|| PathBuf::from(&reference));
                let adapter = adapters.as_ref().and_then(|adapters| adapters.get(&reference));
                opened.0.checkpoint(&reference, &path, adapter.map(PathBuf::as_path))
            };
            let checkpoints = recipe.references().into_iter().map(open).collect::<Result<_>>()?;
            let plan = plan::plan_in(recipe, checkpoints, vocabulary.map(|rows| rows.0))?;
            let layout = layout::layout(&plan, shard_size.unwrap_or(layout::DEFAULT_SHARD))?;
            let limits = Limits::choose(&plan, threads, max_memory, tile)?;
            Ok(Plan { plan, layout, limits })
        };
        enter(py, &Watch::default(), None, make)
    }

    fn summary(&self) -> String {
        report::summary(&self.plan, &self.layout, self.limits.threads, self.limits.bytes(&self.plan)).to_string()
    }

    fn steps(&self) -> String {
        report::steps(&self.plan).to_string()
    }

    fn tensors(&self) -> String {
        report::tensors(&self.plan).to_string()
    }

    #[pyo3(signature = (progress = None))]
    fn geometry(&self, py: Python, progress: Option<Py<PyAny>>) -> PyResult<String> {
        let watch = Watch::default();
        enter(py, &watch, progress, || run::geometry::measure(&self.plan, self.limits, &watch).map(|json| json.to_string()))
    }

    fn is_made(&self, py: Python, out: PathBuf, side_files: SideFiles) -> PyResult<bool> {
        enter(py, &Watch::default(), None, || report::is_made(&self.plan, &self.layout, &side_files.0, &out))
    }

    #[pyo3(signature = (out, side_files, overwrite = false, progress = None, device = None))]
    fn run(
        &self,
        py: Python,
        out: PathBuf,
        side_files: SideFiles,
        overwrite: bool,
        progress: Option<Py<PyAny>>,
        device: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let (watch, device) = (Watch::default(), device.map(PyDevice));
        enter(py, &watch, progress, || {
            let device = device.as_ref().map(|device| device as &dyn Device);
            let order = Order { title: String::new(), plan: &self.plan, layout: &self.layout, out, side_files: side_files.0 };
            run::disk::merge(order, self.limits, overwrite, device, &watch).map(|report| report.0.to_string())
        })
    }
}

/// Merges every plan into its folder: (title, plan, out, side files) each; their reports, in order.
#[pyfunction]
#[pyo3(signature = (orders, inputs, threads = None, max_memory = None, overwrite = false, progress = None))]
fn merge_many(
    py: Python,
    orders: Vec<(String, Py<Plan>, PathBuf, SideFiles)>,
    inputs: Vec<PathBuf>,
    threads: Option<usize>,
    max_memory: Option<u64>,
    overwrite: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<Vec<String>> {
    let watch = Watch::default();
    let (plans, rest): (Vec<_>, Vec<_>) = orders.into_iter().map(|(title, plan, out, files)| (plan, (title, out, files.0))).unzip();
    enter(py, &watch, progress, || {
        let mut orders = Vec::new();
        for (plan, (title, out, side_files)) in plans.iter().zip(rest) {
            let Plan { plan, layout, .. } = plan.get();
            orders.push(Order { title, plan, layout, out, side_files });
        }
        let reports = run::disk::merge_many(orders, (threads, max_memory), &inputs, overwrite, &watch)?;
        Ok(reports.into_iter().map(|report| report.0.to_string()).collect())
    })
}

/// Refuses outputs that lie in one another, and those that may not be written, from number `first` on.
#[pyfunction]
#[pyo3(signature = (outs, inputs, first, overwrite = false))]
fn check_outputs(py: Python, outs: Vec<PathBuf>, inputs: Vec<PathBuf>, first: usize, overwrite: bool) -> PyResult<()> {
    enter(py, &Watch::default(), None, || {
        write::check_apart(&outs)?;
        outs.iter().skip(first).try_for_each(|out| write::check(out, &inputs, overwrite))
    })
}

#[pyfunction]
#[pyo3(signature = (path, adapter = None))]
fn checkpoint(py: Python, path: PathBuf, adapter: Option<PathBuf>) -> PyResult<String> {
    enter(py, &Watch::default(), None, || {
        let model = Checkpoint::open(&path.to_string_lossy(), &path)?;
        let model = adapter.iter().try_fold(model, |model, adapter| model.adapted(adapter))?;
        Ok(report::contents(&model).to_string())
    })
}

#[pyfunction]
#[pyo3(signature = (path, threads = None, progress = None))]
fn verify(py: Python, path: PathBuf, threads: Option<usize>, progress: Option<Py<PyAny>>) -> PyResult<String> {
    let watch = Watch::default();
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    enter(py, &watch, progress, || verifier::verify(&path, threads, &watch).map(|verdict| verdict.json(&path).to_string()))
}

#[pyfunction]
#[pyo3(signature = (recipe, models, base, onto, out, threads = None))]
fn merge_arrays(
    py: Python,
    recipe: &str,
    models: Vec<Inputs>,
    base: Option<Inputs>,
    onto: Option<Inputs>,
    mut out: Arrays,
    threads: Option<usize>,
) -> PyResult<String> {
    let watch = Watch::default();
    enter(py, &watch, None, || {
        let recipe = Recipe::parse(recipe, false)?;
        let numbered = models.iter().enumerate().map(|(i, inputs)| inputs.checkpoint(&format!("model {i}")));
        let base = base.iter().map(|inputs| inputs.checkpoint("base"));
        let checkpoints = base.chain(numbered).chain(onto.iter().map(|inputs| inputs.checkpoint("onto"))).collect();
        let plan = plan::plan(recipe, checkpoints)?;
        let limits = Limits::choose(&plan, threads, None, None)?;
        let summary = run::memory::merge(&plan, limits, out.lend(), &watch)?;
        let norm = |i: usize| summary.delta_norm.map(|d| d[i]).filter(|d| d.is_finite());
        Ok(json!({"delta_norm": norm(0), "delta_norm_rounded": norm(1), "nan": summary.unfinite[0], "inf": summary.unfinite[1]})
            .to_string())
    })
}

#[pyfunction]
fn random_mask(py: Python, seed: u64, name: &str, model: usize, density: f64, mut out: Arrays) -> PyResult<()> {
    enter(py, &Watch::default(), None, || {
        let key = mask::Key::new(seed, name, model);
        for bytes in out.lend().into_values() {
            let mut first = 0;
            let mut kept = [false; 4096];
            for strip in bytes.chunks_mut(kept.len()) {
                let kept = &mut kept[..strip.len()];
                mask::fill(key, first, density, kept);
                strip.iter_mut().zip(kept.iter()).for_each(|(byte, kept)| *byte = u8::from(*kept));
                first += strip.len() as u64;
            }
        }
        Ok(())
    })
}

/// Keeps OUT.partial for the documents of one request while it lives.
#[pyclass(frozen)]
struct Claim {
    _claim: documents::Claim,
}

#[pyfunction]
#[pyo3(signature = (out, inputs, request, overwrite = false))]
fn claim(py: Python, out: PathBuf, inputs: Vec<PathBuf>, request: &str, overwrite: bool) -> PyResult<Claim> {
    enter(py, &Watch::default(), None, || documents::claim(&out, &inputs, request, overwrite).map(|_claim| Claim { _claim }))
}

type Repeats = Vec<(usize, usize, usize)>;
type Frames = Vec<(usize, usize, usize, usize, usize)>;
type Windows = Vec<(usize, usize, f64)>;
type Scripts = Vec<(usize, usize, &'static str, bool)>;
type Sentences = Vec<(usize, usize, Option<&'static str>)>;

/// What `text` repeats, and in which scripts and languages its prose is written.
#[pyfunction]
fn text_facts(
    py: Python,
    text: String,
    prose: String,
    shortest: usize,
    window: (usize, usize),
) -> PyResult<(Repeats, Frames, Windows, Scripts, Sentences)> {
    enter(py, &Watch::default(), None, || {
        let (text, prose): (Vec<char>, Vec<char>) = (text.chars().collect(), prose.chars().collect());
        Ok((
            loops::repeats(&text, shortest).into_iter().map(|r| (r.start, r.end, r.period)).collect(),
            frames::runs(&text).into_iter().map(|r| (r.start, r.end, r.units, r.words, r.new)).collect(),
            compression::windows(&text, window.0, window.1).into_iter().map(|(w, ratio)| (w.start, w.end, ratio)).collect(),
            scripts::runs(&prose).into_iter().map(|r| (r.start, r.end, r.script.full_name(), r.glued)).collect(),
            languages::sentences(&prose).into_iter().map(|s| (s.start, s.end, s.language)).collect(),
        ))
    })
}

/// Free bytes on the disk that holds `path` (or its nearest existing parent).
#[pyfunction]
fn free_space(py: Python, path: PathBuf) -> PyResult<u64> {
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("."));
    mergecore::write::free_space(existing).map_err(|e| raise(py, mergecore::error::Error::opening(existing, &e)))
}

#[pymodule(gil_used = false)]
fn _mergecore(module: &Bound<PyModule>) -> PyResult<()> {
    module.add("__version__", report::VERSION)?;
    module.add_class::<Plan>()?;
    module.add_class::<Opened>()?;
    module.add_class::<stream::Stream>()?;
    module.add_class::<Claim>()?;
    module.add_class::<convert::Bytes>()?;
    module.add_function(wrap_pyfunction!(registry, module)?)?;
    module.add_function(wrap_pyfunction!(modifiers, module)?)?;
    module.add_function(wrap_pyfunction!(recipe_models, module)?)?;
    module.add_function(wrap_pyfunction!(merge_many, module)?)?;
    module.add_function(wrap_pyfunction!(check_outputs, module)?)?;
    module.add_function(wrap_pyfunction!(checkpoint, module)?)?;
    module.add_function(wrap_pyfunction!(verify, module)?)?;
    module.add_function(wrap_pyfunction!(merge_arrays, module)?)?;
    module.add_function(wrap_pyfunction!(random_mask, module)?)?;
    module.add_function(wrap_pyfunction!(claim, module)?)?;
    module.add_function(wrap_pyfunction!(text_facts, module)?)?;
    module.add_function(wrap_pyfunction!(free_space, module)?)
}
