//! What must be computed? Recipe and checkpoints in, a list of jobs out: one an output tensor.
//!
//! Every input tensor is accounted for: merged, copied, or left out because the recipe or its nature says so. Whatever does not fit
//! together is an error here, before the first byte is written. Tensor names come from the checkpoints; no table of architectures is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::checkpoint::vocabulary::Vocabulary;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::methods::{Grain, Need, Scope};
use crate::names::{self, Layer};
use crate::recipe::Recipe;

mod bound;
mod fit;
mod heads;
pub mod matrices;
mod outline;
mod parts;

use bound::Binder;
pub use bound::Bound;
use fit::{Input, Inputs};
use matrices::{Surroundings, Whole};
use outline::Sieve;
use parts::Modules;

/// The whole merge, decided.
pub struct Plan<'a> {
    pub recipe: Recipe,
    /// Every model that is read, once.
    pub checkpoints: Vec<Checkpoint<'a>>,
    pub jobs: Vec<Job<'a>>,
    /// Input tensors that are not in the output, by name.
    pub ignored: Vec<String>,
    /// An output head was found equal to the embedding and is not written; or differs from a tied one and is.
    pub head: Head,
    /// What every model's embedding was brought to, where the recipe asks for it.
    pub vocabulary: Option<Vocabulary>,
    pub notes: Vec<String>,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    AsItIs,
    Tied,
    Untied,
}

/// One output tensor.
pub struct Job<'a> {
    pub name: String,
    /// Its slice, by its number in the recipe.
    pub slice: usize,
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    pub work: Work<'a>,
    /// Arithmetic in f64.
    pub wide: bool,
    /// The method, where there is something to merge.
    pub bound: Option<Arc<Bound>>,
    /// What of it is merged or modified as a matrix; and so by the method whose norm is matched.
    pub whole: Option<Whole>,
    pub whole_of_other: Option<Whole>,
    /// Where the sources come from, in their order.
    pub origins: Vec<Origin>,
}

/// Numbered layers of the output.
pub struct Stack<'p> {
    pub name: String,
    /// What the field calls the part of the model that they are, in a recipe with modules.
    pub part: Option<&'static str>,
    /// For each layer: whose it is first of all, and which of its layers.
    pub origins: Vec<(&'p str, usize)>,
}

/// A model, by its reference, and the name of a tensor in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub model: String,
    pub tensor: String,
}

pub enum Work<'a> {
    Merge {
        /// What task vectors are taken from, and ‖Δ‖.
        base: Option<Tensor<'a>>,
        inputs: Vec<Tensor<'a>>,
        /// What the merged task vector is added to, where that is not the base.
        onto: Option<Tensor<'a>>,
    },
    /// Equal in all inputs.
    Copy(Tensor<'a>),
}

impl Job<'_> {
    pub fn scope(&self) -> Scope {
        self.bound.as_ref().map_or(Scope::Tensor, |bound| bound.method.scope())
    }

    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    pub fn bytes(&self) -> u64 {
        self.elements() * self.dtype.size() as u64
    }

    /// The length of the last axis; 1 without axes.
    pub fn row(&self) -> usize {
        self.shape.last().map_or(1, |n| *n as usize).max(1)
    }

    /// Elements of a block: the piece that a method sees at once, from which facts are added up in order.
    pub fn block(&self) -> u64 {
        // Rows of f32 take 64 KB, so that a few of them fit a core's cache. Sums are added block by block: changing it changes last digits.
        const BLOCK: u64 = 16 * 1024;
        match self.bound.as_ref().map_or(Grain::Element, |bound| bound.method.grain()) {
            Grain::Element => BLOCK,
            Grain::Row => (BLOCK / self.row() as u64).max(1) * self.row() as u64,
            Grain::Tensor => self.elements().max(1),
        }
    }

    pub fn blocks(&self) -> usize {
        self.elements().div_ceil(self.block()) as usize
    }

    /// Everything this job reads, base first.
    pub fn sources(&self) -> Vec<&Tensor<'_>> {
        match &self.work {
            Work::Merge { base, inputs, onto } => base.iter().chain(inputs).chain(onto).collect(),
            Work::Copy(tensor) => vec![tensor],
        }
    }

    /// Bytes that are held in memory while this job is in work, beside the rows.
    pub fn held(&self) -> u64 {
        self.sources().iter().map(|tensor| tensor.source.held()).sum()
    }

    /// What one element takes in all that this job reads.
    pub fn element_bytes(&self) -> u64 {
        self.sources().iter().map(|tensor| tensor.dtype.size() as u64).sum()
    }

    pub fn bytes_to_read(&self) -> u64 {
        self.sources().iter().map(|tensor| tensor.bytes()).sum()
    }
}

/// Decides everything. `checkpoints` are those of `recipe.references()`, in that order.
pub fn plan<'a>(recipe: Recipe, checkpoints: Vec<Checkpoint<'a>>) -> Result<Plan<'a>> {
    plan_in(recipe, checkpoints, None)
}

/// The same, with every model brought to one vocabulary first.
pub fn plan_in<'a>(recipe: Recipe, mut checkpoints: Vec<Checkpoint<'a>>, vocabulary: Option<Vocabulary>) -> Result<Plan<'a>> {
    match &vocabulary {
        Some(vocabulary) => vocabulary.align(&mut checkpoints)?,
        None if recipe.aligns_tokens() => return Err(Error::recipe("tokenizer_source and tokenizer need models on disk, with tokenizers")),
        None => {}
    }
    let find = |reference: &str| {
        checkpoints.iter().find(|c| c.reference == *reference).ok_or_else(|| Error::recipe(format!("model {reference} was not opened")))
    };
    let base = recipe.base.as_deref().map(find).transpose()?;
    let onto = recipe.onto.as_deref().filter(|onto| recipe.base.as_deref() != Some(onto)).map(find).transpose()?;
    let models = recipe.models().into_iter().map(|model| find(model)).collect::<Result<Vec<_>>>()?;
    let all: Vec<&Checkpoint> = base.iter().chain(&models).chain(&onto).copied().collect();

    let asked = |name: &str| recipe.ignore.iter().any(|glob| names::glob(glob, name));
    let left = |model: &Checkpoint, name: &str| asked(name) || names::derived(name, &model.tensors[name].shape);
    let modules = Modules::of(&recipe, &all, &left)?;
    let of_heads = modules.of_heads(&recipe, &all);
    let heads = heads::reconcile(of_heads.iter().find(|m| m.reference == *recipe.reference()).unwrap_or(&of_heads[0]), &of_heads, &asked)?;
    let outline = outline::of(&recipe, &find, onto, Sieve { modules: &modules, heads: &heads, left: &left, ignored: BTreeSet::new() })?;
    fit::check_ignored(&recipe, &all, &outline.rows)?;
    let mut binder = Binder::new(&recipe);
    let mut jobs = Vec::new();
    for row in &outline.rows {
        let inputs = Inputs::of(row, &recipe, &find, onto, &heads)?;
        let first = inputs.reference(recipe.joined.as_deref());
        inputs.each().try_for_each(|other| fit::check_shapes(&row.name, first, other))?;
        let place = (&first.model.reference, first.tensor.file, first.tensor.offset);
        let (dtype, shape, work) = (first.tensor.dtype, first.tensor.shape.clone(), Work::Copy(first.tensor.clone()));
        let mut job = Job {
            name: row.name.clone(),
            slice: row.slice,
            dtype,
            shape,
            work,
            wide: false,
            bound: None,
            whole: None,
            whole_of_other: None,
            origins: vec![first.origin()],
        };
        if dtype.is_float() {
            job.dtype = recipe.dtype.unwrap_or(dtype);
            job.wide = recipe.wide || job.dtype == Dtype::F64 || inputs.each().any(|input| input.tensor.read_as() == Dtype::F64);
            job.bound = Some(binder.of(row)?);
            job.origins = inputs.each().map(Input::origin).collect();
            let tensor = |input: &Input<'_, 'a>| input.tensor.clone();
            let (base, onto) = (inputs.base.as_ref().map(tensor), inputs.onto.as_ref().map(tensor));
            job.work = Work::Merge { base, inputs: inputs.models.iter().map(tensor).collect(), onto };
        } else {
            inputs.each().try_for_each(|other| fit::check_equal(&row.name, first, other))?;
        }
        jobs.push((place, job));
    }
    // After the models themselves: where the donor is one of them, what they have against each other says more.
    if let Some(donor) = recipe.donor.as_deref().map(find).transpose()? {
        fit::check_donor(donor, &recipe, &find, &outline.rows, &asked)?;
    }
    if jobs.is_empty() {
        return Err(Error::recipe("every tensor is ignored: nothing is left to merge"));
    }
    // One threshold over the whole model compares magnitudes of all tensors: they must be of one type.
    if jobs.iter().any(|(_, job)| job.scope() == Scope::Model) && jobs.iter().any(|(_, job)| job.wide) {
        jobs.iter_mut().for_each(|(_, job)| job.wide = true);
    }
    // The reference's files are read forward.
    jobs.sort_by_key(|(place, _)| *place);
    let mut jobs: Vec<Job> = jobs.into_iter().map(|(_, job)| job).collect();
    let unused = find_matrices(&mut jobs, &recipe, find(recipe.reference())?)?;
    let mut notes = recipe.notes.clone();
    notes.extend(heads.notes());
    notes.extend(checkpoints.iter().filter_map(passed_over));
    let head = heads.verdict();
    let mut warnings = recipe.warnings.clone();
    let names: Vec<&str> = outline.rows.iter().flat_map(|row| row.inputs.iter().chain([&row.name]).map(String::as_str)).collect();
    warnings.extend(recipe.idle_filters(&names));
    warnings.extend(unused);
    warnings.extend(heads::missing(find(recipe.reference())?, &all));
    Ok(Plan { recipe, checkpoints, jobs, ignored: outline.ignored, head, vocabulary, notes, warnings })
}

/// Decides which tensors are merged or modified whole; says if none is, where that is what a method is for.
fn find_matrices(jobs: &mut [Job], recipe: &Recipe, reference: &Checkpoint) -> Result<Option<String>> {
    let found: Vec<_> = {
        let shapes = jobs.iter().map(|job| (job.name.as_str(), &job.shape[..])).collect();
        let around = Surroundings { shapes, config: reference.config.as_ref() };
        let whole = |job: &Job, bound: &Bound| bound.whole(&job.name, &job.shape, job.block(), &around);
        let of = |job: &Job| {
            let bound = job.bound.as_deref()?;
            Some((whole(job, bound), bound.other.as_deref().and_then(|other| whole(job, other))))
        };
        jobs.iter().map(|job| of(job).unwrap_or((None, None))).collect()
    };
    for (job, (own, other)) in jobs.iter_mut().zip(found) {
        (job.whole, job.whole_of_other) = (own, other);
    }
    for (i, modifier) in recipe.modifiers.iter().enumerate().filter(|(_, modifier)| modifier.params.has("matrices")) {
        if !jobs.iter().any(|job| job.whole.as_ref().is_some_and(|whole| whole.reshaped[i])) {
            let (name, which) = (modifier.spec.name, modifier.params.word("matrices"));
            return Err(Error::recipe(format!(
                "{name} finds no matrix with matrices: {which}: give {name} matrices: linear or all (`mergecore methods {name}`), or leave it out"
            )));
        }
    }
    let spectral = |job: &&Job| job.bound.as_ref().is_some_and(|bound| bound.method.spectral().is_some());
    let idle = jobs.iter().any(|job| spectral(&job)) && !jobs.iter().any(|job| job.whole.as_ref().is_some_and(|whole| whole.solved));
    Ok(idle.then(|| format!("no tensor is a matrix to {}: all get the mean of the task vectors", recipe.spec.name)))
}

/// What a file holds beside tensors is said, once, and left out.
fn passed_over(checkpoint: &Checkpoint) -> Option<String> {
    let names: Vec<&str> = checkpoint.passed_over.iter().take(5).map(String::as_str).collect();
    let more = if checkpoint.passed_over.len() > 5 { ", …" } else { "" };
    (!names.is_empty()).then(|| format!("{} holds {}{more} beside its tensors: left out", checkpoint.reference, names.join(", ")))
}

impl Plan<'_> {
    /// The stacks of layers that are pieced together.
    pub fn stacks(&self) -> Vec<Stack<'_>> {
        let mut stacks: BTreeMap<&str, BTreeMap<usize, (&str, usize)>> = BTreeMap::new();
        for job in self.jobs.iter().filter(|job| self.recipe.slices[job.slice].is_range()) {
            // The base's layer counts first: of it the config is, or is like.
            let origin = &job.origins[0];
            let layers = (Layer::of(&job.name), Layer::of(&origin.tensor));
            if let (Some(layer), Some(from)) = layers {
                if !names::kept_for_all(layer.rest) {
                    stacks.entry(layer.stack).or_default().insert(layer.number, (origin.model.as_str(), from.number));
                }
            }
        }
        let modular = !self.recipe.modules.is_empty();
        let stack = |(name, layers): (&str, BTreeMap<usize, _>)| {
            let part = parts::of_stack(name).filter(|_| modular);
            Stack { name: name.to_string(), part, origins: layers.into_values().collect() }
        };
        stacks.into_iter().map(stack).collect()
    }

    /// Number of decoder layers by the output's names; None where they do not tell (no layers, or several stacks).
    pub fn layers(&self) -> Option<usize> {
        names::layers(self.jobs.iter().map(|job| job.name.as_str()))
    }

    pub fn parameter_count(&self) -> u64 {
        self.jobs.iter().map(Job::elements).sum()
    }

    /// Whether facts are of the whole model.
    pub fn scope(&self) -> Scope {
        self.jobs.iter().map(Job::scope).find(|scope| *scope == Scope::Model).unwrap_or(Scope::Tensor)
    }

    /// The most inputs that a tensor has, the base not counted.
    pub fn widest(&self) -> usize {
        self.recipe.slices.iter().map(|slice| slice.sources.len()).max().unwrap_or(0)
    }

    /// The output's most common dtype, by bytes.
    pub fn dtype(&self) -> Dtype {
        let bytes = |dtype: &Dtype| self.jobs.iter().filter(|job| job.dtype == *dtype).map(Job::bytes).sum::<u64>();
        Dtype::FLOATS.into_iter().max_by_key(bytes).expect("there are four")
    }

    /// Whether an output head is among the tensors that are written.
    pub fn has_head(&self) -> bool {
        self.jobs.iter().any(|job| names::is_head(&job.name))
    }

    /// What the config of the base (else of the first model) says of its head; and what the donor's says.
    pub fn reference_tied(&self) -> Option<bool> {
        self.checkpoints.iter().find(|c| c.reference == *self.recipe.reference())?.tied()
    }

    pub fn donor_tied(&self) -> Option<bool> {
        let donor = self.recipe.donor.as_ref()?;
        self.checkpoints.iter().find(|c| c.reference == *donor)?.tied()
    }

    fn merged(&self) -> impl Iterator<Item = &Job<'_>> {
        self.jobs.iter().filter(|job| matches!(job.work, Work::Merge { .. }))
    }

    /// What the methods ask for before they merge, as though all tensors were one.
    pub fn needs(&self) -> Vec<Need> {
        let elements = self.merged().map(Job::elements).sum();
        let mut bounds: Vec<&Arc<Bound>> = Vec::new();
        for bound in self.merged().filter_map(|job| job.bound.as_ref()) {
            if !bounds.iter().any(|known| Arc::ptr_eq(known, bound)) {
                bounds.push(bound);
            }
        }
        bounds.into_iter().flat_map(|bound| bound.needs(elements)).collect()
    }

    /// How often the whole model is surveyed, by this method and by the one whose norm is matched. What a threshold takes beside its one pass
    /// (a sample of one block in 16 before, a look at some blocks after) is not counted. In f64 it may take a second one, unless most
    /// weights are of 16 bits and their differences end in zeros.
    fn surveys(&self) -> usize {
        let elements: u64 = self.merged().map(Job::elements).sum();
        let fine = |job: &&Job| job.wide && job.sources().iter().any(|tensor| tensor.read_as().size() > 2);
        let mostly_fine = self.merged().filter(fine).map(Job::elements).sum::<u64>() > elements / 2;
        let surveys = |need: &Need| match need {
            // All or nothing is kept: there is nothing to look for.
            Need::Largest(keep) if keep.iter().all(|keep| *keep == 0 || *keep >= elements) => 0,
            Need::Largest(_) if mostly_fine => 2,
            _ => 1,
        };
        let of = |bound: &Bound| match bound.method.scope() {
            Scope::Tensor => 0,
            Scope::Model => bound.needs(elements).iter().map(surveys).sum(),
        };
        // One for all tensors, where it is of the model.
        let bound = self.merged().find_map(|job| job.bound.as_deref());
        bound.map_or(0, |bound| of(bound) + bound.other.as_deref().map_or(0, of))
    }

    /// How often a tensor's inputs are read.
    fn passes_of(&self, job: &Job) -> usize {
        // Norms that are matched are measured first: the other method's, and this one's unless it is made in memory.
        let measured = match self.matched() {
            None => 0,
            Some(Scope::Tensor) if job.whole.is_some() => 1,
            Some(_) => 2,
        };
        1 + if matches!(job.work, Work::Merge { .. }) { self.surveys() + measured } else { 0 }
    }

    /// How often the inputs are read from end to end, at most: by every survey of the whole model, to measure norms, and by the merge.
    pub fn passes(&self) -> usize {
        self.jobs.iter().map(|job| self.passes_of(job)).max().unwrap_or(1)
    }

    /// Over what norms are matched, where they are.
    pub fn matched(&self) -> Option<Scope> {
        self.merged().find_map(|job| Some(job.bound.as_ref()?.matched()?.1))
    }

    /// In all passes.
    pub fn bytes_to_read(&self) -> u64 {
        self.jobs.iter().map(|job| job.bytes_to_read() * self.passes_of(job) as u64).sum()
    }

    pub fn bytes_to_write(&self) -> u64 {
        self.jobs.iter().map(Job::bytes).sum()
    }
}
