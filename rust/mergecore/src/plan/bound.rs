//! Which formula for which tensor? A method is bound once for each distinct set of parameters.

use std::sync::Arc;

use super::outline::Row;
use crate::error::{Error, Result};
use crate::kernels::cutoff::Cutoff;
use crate::methods::{Facts, Method, Need, Scope};
use crate::params::Params;
use crate::recipe::{Place, Recipe};

/// A method with the parameters that some tensors share.
pub struct Bound {
    pub params: Params,
    pub method: Box<dyn Method>,
    /// λ, which scales the merged task vector before it is added; 1 for a method without one.
    pub lambda: f64,
}

impl Bound {
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
        let method = (self.recipe.spec.bind)(&params)?;
        let lambda = if params.has("lambda") { params.number("lambda") } else { 1.0 };
        if (method.scope() == Scope::Model || self.bound.first().is_some_and(|other| other.method.scope() == Scope::Model))
            && !self.bound.is_empty()
        {
            return Err(Error::recipe(
                "scope: model needs parameters that are the same for every tensor: leave the gradients and filters out, or use scope: tensor",
            ));
        }
        self.bound.push(Arc::new(Bound { params, method, lambda }));
        Ok(self.bound[self.bound.len() - 1].clone())
    }
}
