//! What does an adapter make of a model?
//!
//! A LoRA adapter in PEFT's format is put on a checkpoint tensor by tensor: what it changes is computed while it is read, what it saves
//! whole takes the model's place, the rest is the model's own. Whatever of the adapter finds no place is refused by name, since peft would
//! pass over it in silence.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::folder::{self, ADAPTER_CONFIG};
use super::{Checkpoint, Contents, InputFile, Tensor};
use crate::error::{Error, Result};
use crate::names::{ends, is_head, EMBEDDINGS};

mod adapted;
mod config;
mod keys;

use adapted::{InPlaceOf, Patch};
use config::Config;
use keys::{Factors, Keys};

impl Checkpoint<'static> {
    /// The model with the adapter in the folder `path` on it.
    pub fn adapted(mut self, path: &Path) -> Result<Self> {
        let Contents { files, headers, tensors, .. } = Contents::of(path, &folder::find_adapter(path)?)?;
        let config_path = path.join(ADAPTER_CONFIG);
        // Read from the file whose state is remembered, so that a change can be seen.
        let config_file = InputFile::open(&config_path)?;
        let text = std::fs::read(&config_path).map_err(|e| Error::opening(&config_path, &e))?;
        let config = config::parse(&config_path, &text)?;

        let bad = |what: String| Error::model(format!("{}: {what}", path.display()));
        let Keys { factors, whole } = keys::sort(tensors).map_err(bad)?;
        self.drop_tied_copies(&factors, &whole)?;
        for (name, tensor) in whole {
            self.replace(&name, tensor).map_err(bad)?;
        }
        let transposed = transposed(&self, &config, &factors);
        for (module, factors) in factors {
            self.adapt(&module, factors, &config, transposed).map_err(bad)?;
        }
        self.adapter = Some(path.into());
        self.files.extend(files);
        self.headers.extend(headers);
        self.files.push(Arc::new(config_file));
        self.headers.push(text);
        Ok(self)
    }

    /// A tied model's own copy of its embedding as a head is the embedding, also once that is adapted.
    fn drop_tied_copies(&mut self, factors: &BTreeMap<String, Factors>, whole: &BTreeMap<String, Tensor>) -> Result<()> {
        let changed = |name: &str| whole.contains_key(name) || factors.keys().any(|module| format!("{module}.weight") == *name);
        let find = |wanted: &dyn Fn(&str) -> bool| self.tensors.keys().find(|name| wanted(name)).cloned();
        let head = find(&|name| is_head(name) && !changed(name));
        let embedding = find(&|name| EMBEDDINGS.iter().any(|end| ends(name, end)) && changed(name));
        let (Some(head), Some(embedding), Some(true)) = (head, embedding, self.tied()) else { return Ok(()) };
        if self.tensors[&head].same_as(&self.tensors[&embedding])? {
            self.tensors.remove(&head);
        }
        Ok(())
    }

    /// Puts a tensor that the adapter saves whole in the place of the model's.
    fn replace(&mut self, name: &str, mut tensor: Tensor<'static>) -> std::result::Result<(), String> {
        tensor.file += self.files.len();
        if let Some(own) = self.tensors.get(name) {
            if own.shape != tensor.shape {
                return Err(format!("tensor {name} has shape {:?}, and {:?} in {}", tensor.shape, own.shape, self.reference));
            }
            if own.dtype != tensor.dtype && !(own.dtype.is_float() && tensor.dtype.is_float()) {
                let (dtype, other) = (tensor.dtype.name(), own.dtype.name());
                return Err(format!("tensor {name} is {dtype}, and {other} in {}", self.reference));
            }
            if own.dtype != tensor.dtype {
                tensor = Tensor { dtype: own.dtype, source: Arc::new(InPlaceOf(tensor.clone())), ..tensor };
            }
        } else if !(is_head(name) && self.tied() == Some(true)) {
            // A tied model may be given a head of its own.
            return Err(format!("tensor {name} is not in {}: is it an adapter of that model?", self.reference));
        }
        self.tensors.insert(name.into(), tensor);
        Ok(())
    }

    /// Puts a module's factors on its weight.
    fn adapt(&mut self, module: &str, factors: Factors, config: &Config, transposed: bool) -> std::result::Result<(), String> {
        let (name, model) = (format!("{module}.weight"), &self.reference);
        let Factors { a, b, magnitude, embedding } = factors;
        if is_head(&name) && self.tied() == Some(true) {
            return Err(format!("it adapts {module}, which is tied to the embedding in {model}: untie the model first"));
        }
        let weight = self
            .tensors
            .get(&name)
            .ok_or_else(|| format!("it adapts {module}, and {model} has no {name}: is it an adapter of that model?"))?;
        if let Some(odd) = [&a, &b].into_iter().chain(&magnitude).find(|tensor| !tensor.dtype.is_float()) {
            return Err(format!("the factors of {module} are {}, which takes no part in arithmetic", odd.dtype.name()));
        }
        if a.shape.len() != 2 || b.shape.len() != 2 || !weight.dtype.is_float() {
            return Err(format!(
                "module {module} is no linear layer or embedding, and others are not supported; merge the adapter with peft"
            ));
        }
        let rank = config.rank(module);
        let shapes = (&a.shape, &b.shape, &weight.shape);
        if a.shape[0] != rank || b.shape[1] != rank {
            return Err(format!(
                "module {module}: its factors {:?} and {:?} are not of the rank {rank} that its config says",
                shapes.1, shapes.0
            ));
        }
        let plain = weight.shape[..] == [b.shape[0], a.shape[1]] && !embedding;
        let swapped = weight.shape[..] == [a.shape[1], b.shape[0]];
        if !plain && !swapped {
            return Err(format!(
                "module {module}: its factors {:?} and {:?} do not fit {name} of {model}, {:?}",
                shapes.1, shapes.0, shapes.2
            ));
        }
        // The shape says which it is; of a square weight it cannot.
        let transposed = if plain && swapped { transposed } else { swapped };
        match (&magnitude, config.dora) {
            (None, true) => return Err(format!("module {module} has no lora_magnitude_vector, and its config says use_dora")),
            (Some(_), false) => return Err(format!("module {module} has a lora_magnitude_vector, and its config does not say use_dora")),
            (Some(m), true) if m.elements() != weight.shape[usize::from(transposed)] => {
                return Err(format!("module {module}: its lora_magnitude_vector {:?} does not fit {name}, {:?}", m.shape, shapes.2));
            }
            _ => {}
        }
        let patch = Patch { a, b, magnitude, scale: config.scale(module), transposed };
        let adapted = adapted::tensor(weight, patch);
        self.tensors.insert(name, adapted);
        Ok(())
    }
}

/// Whether square weights are stored as (in, out). peft looks at the module's class whatever the config says; here the weights that are
/// not square tell, if there are any (heads do not count: they are linear layers also where the others are GPT-2's).
fn transposed(model: &Checkpoint, config: &Config, factors: &BTreeMap<String, Factors>) -> bool {
    let (mut plain, mut swapped) = (0, 0);
    for (module, Factors { a, b, embedding, .. }) in factors {
        let name = format!("{module}.weight");
        let Some(weight) = model.tensors.get(&name) else { continue };
        let ([_, inner], [outer, _], [rows, columns]) = (&a.shape[..], &b.shape[..], &weight.shape[..]) else { continue };
        if !embedding && !is_head(&name) && rows != columns {
            plain += usize::from((rows, columns) == (outer, inner));
            swapped += usize::from((rows, columns) == (inner, outer));
        }
    }
    match (plain > 0, swapped > 0) {
        (true, false) => false,
        (false, true) => true,
        _ => config.transposed,
    }
}
