//! Which recipes are run at the same time? Those that read the same tensors, as many as fit into the memory.

use std::collections::BTreeSet;

use super::Limits;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::methods::{Grain, Scope};
use crate::plan::{Job, Plan};

/// Recipes that are run at the same time, by their numbers, and within what.
pub struct Group {
    pub recipes: Vec<usize>,
    pub limits: Limits,
}

/// What recipes may take together where nothing else is said: as much as any one of them may be expected to.
const TOGETHER: u64 = 400 << 20;

/// Bytes that a tensor of a recipe takes that is not run yet.
const WAITING: u64 = 2048;

/// Sorts recipes into groups. None gets less than `max_memory` for itself would leave it of threads, and none waits for facts of another's
/// whole model: recipes that need those, or tensors in memory whole, are run alone.
///
/// # Errors
/// A recipe does not fit by itself.
pub fn groups(plans: &[&Plan], threads: Option<usize>, max_memory: Option<u64>) -> Result<Vec<Group>> {
    let alone = plans.iter().map(|plan| Limits::choose(plan, threads, max_memory, None)).collect::<Result<Vec<_>>>()?;
    let sources: Vec<_> = plans.iter().map(|plan| if shares(plan) { sources(plan) } else { BTreeSet::new() }).collect();
    let cap = max_memory.unwrap_or(TOGETHER);
    let fit = |recipes: &[usize]| -> Result<Limits> {
        let members: Vec<&Plan> = recipes.iter().map(|recipe| plans[*recipe]).collect();
        // The plans of those that wait lie in memory, too.
        let waiting = plans.iter().enumerate().filter(|(recipe, _)| !recipes.contains(recipe));
        let waiting: u64 = waiting.map(|(_, plan)| plan.jobs.len() as u64 * WAITING).sum();
        Limits::choose_for(&members, threads, Some(cap.saturating_sub(waiting)), None)
    };
    let mut groups: Vec<Group> = Vec::new();
    let mut left: Vec<usize> = (0..plans.len()).collect();
    while !left.is_empty() {
        let first = left.remove(0);
        let mut group = Group { recipes: vec![first], limits: alone[first] };
        let (mut read, mut too_large) = (sources[first].clone(), BTreeSet::new());
        // One that reads nothing in common with those so far may do so with one that comes later.
        let candidate = |read: &BTreeSet<_>, too_large: &BTreeSet<usize>, left: &[usize]| {
            left.iter().position(|recipe| !too_large.contains(recipe) && !read.is_disjoint(&sources[*recipe]))
        };
        while let Some(place) = candidate(&read, &too_large, &left) {
            let members = [&group.recipes[..], &[left[place]]].concat();
            let limits = fit(&members).ok().filter(|limits| members.iter().all(|member| limits.threads >= alone[*member].threads));
            if let Some(limits) = limits {
                group = Group { recipes: members, limits };
                read.extend(&sources[left.remove(place)]);
            } else {
                too_large.insert(left[place]);
            }
        }
        group.recipes.sort_unstable();
        groups.push(group);
    }
    Ok(groups)
}

/// Whether a recipe is one of those that gain by sharing: tensors are merged block by block, and none waits for all others.
fn shares(plan: &Plan) -> bool {
    let by_blocks = |job: &Job| {
        let whole = job.whole.is_some() || job.whole_of_other.is_some();
        !whole && job.bound.as_ref().is_none_or(|bound| bound.method.grain() != Grain::Tensor)
    };
    plan.scope() == Scope::Tensor && plan.matched().is_none() && plan.jobs.iter().all(by_blocks)
}

/// Tells what a recipe reads.
fn sources(plan: &Plan) -> BTreeSet<(usize, u64, Dtype)> {
    plan.jobs.iter().flat_map(|job| job.sources()).map(|tensor| tensor.place()).collect()
}
