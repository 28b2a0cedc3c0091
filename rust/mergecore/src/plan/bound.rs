//! Which formula for which tensor? A method is bound once for each distinct set of parameters.

use std::sync::Arc;

use super::matrices::{self, Surroundings, Whole};
use super::outline::Row;
use crate::error::{Error, Result};
use crate::kernels::cutoff::Cutoff;
use crate::methods::{self, Facts, Method, Need, Scope};
use crate::modifiers::Modifier;
use crate::params::Params;
use crate::recipe::{Place, Recipe};

/// A method with the parameters that some tensors share.
pub struct Bound {
    pub params: Params,
    pub method: Box<dyn Method>,
    /// λ, which scales the merged task vector before it is added; 1 for a method without one.
    pub lambda: f64,
    /// What is done to the merged task vector before, in this order.
    pub modifiers: Vec<Modifier>,
    /// What the method makes whose norm is matched.
    pub other: Option<Arc<Bound>>,
}

impl Bound {
    fn new(spec: &methods::Spec, params: Params) -> Result<Bound> {
        let method = (spec.bind)(&params)?;
        let lambda = if params.has("lambda") { params.number("lambda") } else { 1.0 };
        Ok(Bound { params, method, lambda, modifiers: Vec::new(), other: None })
    }

    /// What of such a tensor is merged or modified as matrices.
    pub fn whole(&self, name: &str, shape: &[u64], block: u64, around: &Surroundings) -> Option<Whole> {
        let takes = |which| matrices::takes(which, name, shape);
        let spectral = self.method.spectral().filter(|spectral| takes(spectral.which()));
        let reshaped: Vec<bool> =
            self.modifiers.iter().map(|m| matches!(m, Modifier::Reshape(reshape) if takes(reshape.which()))).collect();
        if spectral.is_none() && !reshaped.contains(&true) {
            return None;
        }
        // What is not merged as matrices, and what is measured, is whole at once.
        let units = |block| matrices::units(name, shape, block, around);
        let apart = units(if self.matched().is_some() { u64::MAX } else { block });
        let solved = spectral.is_some_and(|s| apart.iter().flat_map(|unit| &unit.parts).all(|part| s.takes(part.shape(4).short())));
        match (solved, reshaped.contains(&true)) {
            (true, _) => Some(Whole { units: apart, solved, reshaped }),
            (false, true) => Some(Whole { units: units(u64::MAX), solved, reshaped }),
            (false, false) => None,
        }
    }

    /// Over what ‖Δ‖ is matched to another method's, and after how many modifiers.
    pub fn matched(&self) -> Option<(usize, Scope)> {
        let scope = |(i, modifier): (usize, &Modifier)| match modifier {
            Modifier::MatchNorm(scope) => Some((i, *scope)),
            Modifier::Reshape(_) => None,
        };
        self.modifiers.iter().enumerate().find_map(scope)
    }

    /// What the method asks for before it merges so many elements.
    pub fn needs(&self, elements: u64) -> Vec<Need> {
        let (mut facts, mut needs) = (Facts::default(), Vec::new());
        loop {
            let need = self.method.need(&facts, elements);
            match &need {
                Need::Nothing => return needs,
                Need::Sums(count) => facts.sums.resize(facts.sums.len() + count, 1.0),
                Need::Largest(keep) => facts.cutoffs.resize(facts.cutoffs.len() + keep.len(), Cutoff::ALL),
            }
            needs.push(need);
        }
    }
}

pub struct Binder<'r> {
    recipe: &'r Recipe,
    bound: Vec<Arc<Bound>>,
}

impl<'r> Binder<'r> {
    pub fn new(recipe: &'r Recipe) -> Self {
        Binder { recipe, bound: Vec::new() }
    }

    pub fn of(&mut self, row: &Row) -> Result<Arc<Bound>> {
        let place = Place { slice: row.slice, depth: row.depth, name: &row.name, inputs: &row.inputs };
        let params = self.recipe.params(&place)?;
        if let Some(known) = self.bound.iter().find(|bound| bound.params == params) {
            return Ok(known.clone());
        }
        let mut bound = Bound::new(self.recipe.spec, params)?;
        let models: Vec<&str> = self.recipe.slices[row.slice].sources.iter().map(|source| source.model.as_str()).collect();
        for modifier in &self.recipe.modifiers {
            bound.modifiers.push((modifier.spec.bind)(&modifier.params));
            if let Some((spec, params)) = modifier.params_of_other(&models)? {
                bound.other = Some(Arc::new(Bound::new(spec, params)?));
            }
        }
        if (is_of_model(&bound) || self.bound.first().is_some_and(|other| is_of_model(other))) && !self.bound.is_empty() {
            return Err(Error::recipe(
                "scope: model needs parameters that are the same for every tensor: leave the gradients and filters out, or use scope: tensor",
            ));
        }
        self.bound.push(Arc::new(bound));
        Ok(self.bound[self.bound.len() - 1].clone())
    }
}

/// Whether a threshold over the whole model is sought: all tensors then share one method's facts.
fn is_of_model(bound: &Bound) -> bool {
    let of_model = |bound: &Bound| bound.method.scope() == Scope::Model;
    of_model(bound) || bound.other.as_deref().is_some_and(of_model)
}
