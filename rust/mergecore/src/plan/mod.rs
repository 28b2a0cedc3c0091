//! What must be computed? Recipe and checkpoints in, a list of jobs out: one an output tensor.
//!
//! Every input tensor is accounted for: merged, copied, or left out because the recipe or its nature says so. Whatever does not fit
//! together is an error here, before the first byte is written. Tensor names come from the checkpoints; no table of architectures is asked.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkpoint::{Checkpoint, Tensor};
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::kernels::cutoff::Cutoff;
use crate::methods::{Facts, Need, Scope};
use crate::recipe::Recipe;

mod heads;
pub mod names;

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
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    pub work: Work<'a>,
    /// Arithmetic in f64.
    pub wide: bool,
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
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    pub fn bytes(&self) -> u64 {
        self.elements() * self.dtype.size() as u64
    }

    /// Everything this job reads, base first.
    pub fn sources(&self) -> Vec<&Tensor<'_>> {
        match &self.work {
            Work::Merge { base, inputs, onto } => base.iter().chain(inputs).chain(onto).collect(),
            Work::Copy(tensor) => vec![tensor],
        }
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
    let find = |reference: &String| {
        checkpoints.iter().find(|c| c.reference == *reference).ok_or_else(|| Error::recipe(format!("model {reference} was not opened")))
    };
    let base = recipe.base.as_ref().map(find).transpose()?;
    let onto = recipe.onto.as_ref().filter(|onto| recipe.base.as_ref() != Some(onto)).map(find).transpose()?;
    let inputs = recipe.models.iter().map(find).collect::<Result<Vec<_>>>()?;
    let all: Vec<&Checkpoint> = base.iter().chain(&inputs).chain(&onto).copied().collect();

    let reference = find(recipe.reference())?;
    let asked = |name: &str| recipe.ignore.iter().any(|glob| names::matches(glob, name));
    let heads = heads::reconcile(reference, &all, &asked)?;
    let (ignored, names) = account(&asked, &all, &heads)?;
    if let Some(donor) = recipe.donor.as_ref().map(find).transpose()? {
        check_donor(donor, reference, &names, &asked)?;
    }
    let tensor = |model: &Checkpoint<'a>, name: &str| model.tensor(heads.source(model, name)).cloned();

    let mut jobs = Vec::new();
    for name in &names {
        let first = tensor(reference, name)?;
        for model in &all {
            let other = tensor(model, name)?;
            if other.shape != first.shape {
                return Err(misfit(name, &first.shape, reference, &other.shape, model));
            }
            if other.dtype != first.dtype && !(other.dtype.is_float() && first.dtype.is_float()) {
                let (a, b) = (first.dtype.name(), other.dtype.name());
                return Err(Error::model(format!(
                    "tensor {name} is {a} in {} and {b} in {}: only floating-point types can be mixed",
                    reference.reference, model.reference
                )));
            }
        }
        let mut job =
            Job { name: name.clone(), dtype: first.dtype, shape: first.shape.clone(), work: Work::Copy(first.clone()), wide: false };
        if first.dtype.is_float() {
            let inputs = inputs.iter().map(|model| tensor(model, name)).collect::<Result<Vec<_>>>()?;
            let base = base.map(|base| tensor(base, name)).transpose()?;
            let onto = onto.map(|onto| tensor(onto, name)).transpose()?;
            job.dtype = recipe.dtype.unwrap_or(first.dtype);
            job.work = Work::Merge { base, inputs, onto };
            job.wide = job.dtype == Dtype::F64 || job.sources().iter().any(|t| t.dtype == Dtype::F64);
        } else {
            for model in &all {
                if !tensor(model, name)?.same_as(&first)? {
                    let dtype = first.dtype.name();
                    return Err(Error::model(format!(
                        "tensor {name} ({dtype}) differs between {} and {}, and only equal {dtype} tensors can be copied: --ignore {name} leaves it out",
                        reference.reference, model.reference
                    )));
                }
            }
        }
        jobs.push(((first.file, first.offset), job));
    }
    if jobs.is_empty() {
        return Err(Error::recipe("every tensor is ignored: nothing is left to merge"));
    }
    // One threshold over the whole model compares magnitudes of all tensors: they must be of one type.
    if recipe.method.scope() == Scope::Model && jobs.iter().any(|(_, job)| job.wide) {
        jobs.iter_mut().for_each(|(_, job)| job.wide = true);
    }
    // The reference's files are read forward.
    jobs.sort_by_key(|(place, _)| *place);
    let jobs = jobs.into_iter().map(|(_, job)| job).collect();
    let mut notes = recipe.notes.clone();
    notes.extend(heads.note());
    let (head, warnings) = (heads.verdict(), recipe.warnings.clone());
    Ok(Plan { recipe, checkpoints, jobs, ignored, head, notes, warnings })
}

/// Which names are left out, and which are in the output: they must be the same in all models.
fn account(asked: &dyn Fn(&str) -> bool, all: &[&Checkpoint], heads: &heads::Heads) -> Result<(Vec<String>, BTreeSet<String>)> {
    let mut ignored = BTreeSet::new();
    let mut holders: BTreeMap<&str, usize> = BTreeMap::new();
    for model in all {
        for (name, tensor) in &model.tensors {
            if asked(name) || names::derived(name, tensor) {
                ignored.insert(name.clone());
            } else if !heads.drops(name) {
                *holders.entry(name).or_default() += 1;
            }
        }
    }
    for name in holders.iter().filter(|(_, count)| **count < all.len()).map(|(name, _)| *name) {
        let has = |model: &&&Checkpoint| model.tensors.contains_key(heads.source(model, name));
        let (Some(with), Some(without)) = (all.iter().find(has), all.iter().find(|model| !has(model))) else { continue };
        return Err(Error::model(format!(
            "tensor {name} is in {} and not in {}: are they fine-tunes of one model? (--ignore '{name}' leaves it out)",
            with.reference, without.reference
        )));
    }
    Ok((ignored.into_iter().collect(), holders.into_keys().map(String::from).collect()))
}

/// A donor that is no input gives its config to weights that it has not seen: they must be of its architecture and size.
fn check_donor(donor: &Checkpoint, reference: &Checkpoint, merged: &BTreeSet<String>, asked: &dyn Fn(&str) -> bool) -> Result<()> {
    let refuse = |what: String| {
        let (donor, reference) = (&donor.reference, &reference.reference);
        Err(Error::model(format!("the donor {donor} does not fit: {what} in {reference}; choose another --donor, or leave it out")))
    };
    for name in merged.iter().filter(|name| !names::is_head(name)) {
        let shape = &reference.tensor(name)?.shape;
        match donor.tensors.get(name) {
            None => return refuse(format!("it has no tensor {name}, which is")),
            Some(tensor) if tensor.shape != *shape => {
                return refuse(format!("tensor {name} has shape {:?} there and {shape:?}", tensor.shape));
            }
            Some(_) => {}
        }
    }
    let known = |name: &String| merged.contains(name) || asked(name) || names::is_head(name);
    match donor.tensors.iter().find(|(name, tensor)| !known(name) && !names::derived(name, tensor)) {
        Some((name, _)) => refuse(format!("it has a tensor {name}, which is not")),
        None => Ok(()),
    }
}

fn misfit(name: &str, a: &[u64], first: &Checkpoint, b: &[u64], second: &Checkpoint) -> Error {
    let way_out = if names::over_vocabulary(name) && a.len() == b.len() && a[1..] == b[1..] {
        "; their vocabularies differ: bring both to one tokenizer first (transformers: model.resize_token_embeddings)"
    } else {
        "; only models of one architecture and size can be merged"
    };
    Error::model(format!("tensor {name} has shape {a:?} in {} and {b:?} in {}{way_out}", first.reference, second.reference))
}

impl Plan<'_> {
    /// Number of decoder layers by the output's names; None where they do not tell (no layers, or several stacks).
    pub fn layers(&self) -> Option<usize> {
        names::layers(self.jobs.iter().map(|job| job.name.as_str()))
    }

    pub fn parameter_count(&self) -> u64 {
        self.jobs.iter().map(Job::elements).sum()
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

    /// What the method asks for before it merges, as though all tensors were one.
    pub fn needs(&self) -> Vec<Need> {
        let (mut facts, mut needs) = (Facts::default(), Vec::new());
        let elements = self.merged().map(Job::elements).sum();
        loop {
            let need = self.recipe.method.need(&facts, elements);
            match &need {
                Need::Nothing => return needs,
                Need::Sums(count) => facts.sums.resize(facts.sums.len() + count, 1.0),
                Need::Largest(keep) => facts.cutoffs.resize(facts.cutoffs.len() + keep.len(), Cutoff::ALL),
            }
            needs.push(need);
        }
    }

    /// How often the inputs are read from end to end: by every survey of the whole model, and by the merge. What a threshold takes beside
    /// its one pass (a sample of one block in 16 before, a look at some blocks after) is not counted. In f64 it may take a second one, unless
    /// most weights are of 16 bits and their differences end in zeros.
    pub fn passes(&self) -> usize {
        let elements: u64 = self.merged().map(Job::elements).sum();
        let fine = |job: &&Job| job.wide && job.sources().iter().any(|tensor| tensor.dtype.size() > 2);
        let mostly_fine = self.merged().filter(fine).map(Job::elements).sum::<u64>() > elements / 2;
        let surveys = |need: &Need| match need {
            // All or nothing is kept: there is nothing to look for.
            Need::Largest(keep) if keep.iter().all(|keep| *keep == 0 || *keep >= elements) => 0,
            Need::Largest(_) if mostly_fine => 2,
            _ => 1,
        };
        match self.recipe.method.scope() {
            Scope::Tensor => 1,
            Scope::Model => 1 + self.needs().iter().map(surveys).sum::<usize>(),
        }
    }

    pub fn bytes_to_read(&self) -> u64 {
        self.jobs.iter().map(Job::bytes_to_read).sum()
    }

    pub fn bytes_to_write(&self) -> u64 {
        self.jobs.iter().map(Job::bytes).sum()
    }
}
