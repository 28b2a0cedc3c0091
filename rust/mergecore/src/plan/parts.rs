//! Which tensors are a module's? Names only.
//!
//! A module of a recipe is called as the field calls a part of a model (`text_decoder`), or as the names of its tensors begin
//! (`model.visual`); `default` is all that no other module takes. Of several that would take a tensor, the one that says more of its name does.

use std::collections::BTreeSet;

use crate::checkpoint::Checkpoint;
use crate::error::{did_you_mean, Error, Result};
use crate::names;
use crate::recipe::Recipe;

/// What the field calls a part, and how the names of its tensors begin; a leading `model.` is left out.
const PARTS: [(&[&str], &[&str]); 7] = [
    (&["text_decoder", "language_model"], &["language_model", "text_model", "layers", "embed_tokens", "norm"]),
    (&["vision_tower", "vision_model"], &["vision_tower", "vision_model", "visual"]),
    (
        &["multi_modal_projector", "connector"],
        &["multi_modal_projector", "connector", "mm_projector", "image_newline", "visual.merger", "visual.deepstack_merger_list"],
    ),
    (&["audio_tower"], &["audio_tower"]),
    (&["encoder"], &["encoder"]),
    (&["decoder"], &["decoder"]),
    (&["shared"], &["shared"]),
];

/// What goes with the embedding: with `shared` where there is one, else with the decoder.
const HEADS: [&str; 4] = ["lm_head", "embed_out", "proj_out", "final_logits_bias"];
/// Copies of what is shared, which loaders read in its stead or not at all.
const SHARED: [&str; 2] = ["encoder.embed_tokens", "decoder.embed_tokens"];

/// All that no other module takes; in mergekit the one module of models that have only one.
const REST: &str = "default";

/// The modules of a recipe, in its order.
pub struct Modules<'r> {
    names: Vec<&'r str>,
    anatomy: Anatomy,
}

/// Whose the heads are.
struct Anatomy {
    shared: bool,
    decoder: bool,
}

impl<'r> Modules<'r> {
    /// Those of a recipe; every tensor that is not `left` is in one of them, and each has some in its own models.
    pub fn of(recipe: &'r Recipe, all: &[&Checkpoint], left: &dyn Fn(&Checkpoint, &str) -> bool) -> Result<Self> {
        let names: Vec<&str> = recipe.modules.iter().map(|module| module.name.as_str()).collect();
        let has = |part| all.iter().any(|model| model.tensors.keys().any(|name| begins(name, part).is_some()));
        let modules = Modules { names, anatomy: Anatomy { shared: has("shared"), decoder: has("decoder") } };
        if modules.names.is_empty() {
            return Ok(modules);
        }
        let mut taken = BTreeSet::new();
        for model in all {
            for name in model.tensors.keys().filter(|name| !left(model, name)) {
                let (first, second) = modules.takers(name);
                match (first, second) {
                    (None, _) => return Err(modules.homeless(name, model)),
                    (Some(one), Some(other)) => {
                        let (one, other) = (modules.names[one], modules.names[other]);
                        return Err(Error::recipe(format!("the modules {one} and {other} both take tensor {name}: give one of them")));
                    }
                    (Some(module), None) => taken.insert((module, model.reference.as_str())),
                };
            }
        }
        for slice in &recipe.slices {
            let Some(module) = slice.module else { continue };
            if let Some(source) = slice.sources.iter().find(|source| !taken.contains(&(module, source.model.as_str()))) {
                let model = all.iter().find(|model| model.reference == source.model).unwrap_or(&all[0]);
                return Err(modules.empty(modules.names[module], model, left));
            }
        }
        Ok(modules)
    }

    /// Whether a tensor is the module's; without modules, all are.
    pub fn takes(&self, module: Option<usize>, tensor: &str) -> bool {
        module.is_none() || self.takers(tensor).0 == module
    }

    fn part(&self, tensor: &str) -> Option<&'static str> {
        self.anatomy.part(tensor).map(|(part, _)| PARTS[part].0[0])
    }

    /// The module that takes a tensor, and one that has the same right to it.
    fn takers(&self, tensor: &str) -> (Option<usize>, Option<usize>) {
        let part = self.anatomy.part(tensor);
        let claim = |name: &str| match part_called(name) {
            Some(called) => part.filter(|(part, _)| *part == called).map(|(_, end)| (end, 0)),
            // What a name says itself counts for more than what it is known to mean.
            None => begins(tensor, name).map(|end| (end, 1)).or((name == REST).then_some((0, 0))),
        };
        let claims: Vec<_> = self.names.iter().map(|name| claim(name)).collect();
        let best = claims.iter().max().copied().flatten();
        let mut takers = claims.iter().enumerate().filter(|(_, claim)| best.is_some() && **claim == best).map(|(module, _)| module);
        (takers.next(), takers.next())
    }

    /// The models that say what the output head is: those that give the module of a head or an embedding, not just a tower.
    pub fn of_heads<'f, 'a>(&self, recipe: &Recipe, all: &[&'f Checkpoint<'a>]) -> Vec<&'f Checkpoint<'a>> {
        let gives = |model: &&&Checkpoint| {
            let has = |module| model.tensors.keys().any(|name| names::over_vocabulary(name) && self.takes(module, name));
            let mut slices = recipe.slices.iter().filter(|slice| slice.sources.iter().any(|source| source.model == model.reference));
            let whole = recipe.base.as_ref() == Some(&model.reference) || recipe.onto.as_ref() == Some(&model.reference);
            self.names.is_empty() || whole || slices.any(|slice| has(slice.module))
        };
        let some: Vec<_> = all.iter().filter(gives).copied().collect();
        if some.is_empty() {
            all.to_vec()
        } else {
            some
        }
    }

    fn homeless(&self, tensor: &str, model: &Checkpoint) -> Error {
        let (known, own) = (self.part(tensor), beginning(tensor));
        let idle = self.names.iter().find(|name| part_called(name).is_none() && !model.tensors.keys().any(|t| begins(t, name).is_some()));
        let parts = PARTS.iter().flat_map(|(names, _)| names.iter().copied()).chain([REST]);
        let meant = idle.map_or(String::new(), |name| did_you_mean(name, parts));
        let known = known.filter(|part| *part != own).map_or(String::new(), |part| format!("{part} or "));
        Error::recipe(format!(
            "tensor {tensor} of {} is in none of the recipe's modules ({}{meant}): add a module {known}{own}, or leave it out \
             (--ignore '{tensor}')",
            model.reference,
            self.names.join(", ")
        ))
    }

    fn empty(&self, module: &str, model: &Checkpoint, left: &dyn Fn(&Checkpoint, &str) -> bool) -> Error {
        let tensors = model.tensors.keys().filter(|name| !left(model, name));
        let there: BTreeSet<&str> = tensors.map(|name| self.part(name).unwrap_or_else(|| beginning(name))).collect();
        Error::recipe(format!(
            "the module {module} takes no tensor of {}{} (its parts: {})",
            model.reference,
            did_you_mean(module, there.iter().copied().filter(|part| *part != module)),
            there.iter().copied().collect::<Vec<_>>().join(", ")
        ))
    }
}

impl Anatomy {
    /// The part that a tensor is of, and how much of its name says so.
    fn part(&self, tensor: &str) -> Option<(usize, usize)> {
        let called = |name| part_called(name).expect("is in the table");
        let longest = |starts: &[&str]| starts.iter().filter_map(|start| begins(tensor, start)).max();
        if let Some(end) = longest(&HEADS) {
            let part = if self.shared {
                "shared"
            } else if self.decoder {
                "decoder"
            } else {
                "text_decoder"
            };
            return Some((called(part), end));
        }
        if let Some(end) = longest(&SHARED).filter(|_| self.shared) {
            return Some((called("shared"), end));
        }
        let parts = PARTS.iter().enumerate().filter_map(|(part, (_, starts))| Some((longest(starts)?, part)));
        parts.max().map(|(end, part)| (part, end))
    }
}

/// What the field calls the part that a stack of layers is of.
pub fn of_stack(stack: &str) -> Option<&'static str> {
    Anatomy { shared: false, decoder: false }.part(stack).map(|(part, _)| PARTS[part].0[0])
}

fn part_called(name: &str) -> Option<usize> {
    PARTS.iter().position(|(names, _)| names.contains(&name))
}

/// Where `start` ends in a name that begins with it, word by word; a leading `model.` may be left out.
fn begins(name: &str, start: &str) -> Option<usize> {
    let end = |name: &str| name.strip_prefix(start).filter(|rest| rest.is_empty() || rest.starts_with('.')).map(|_| start.len());
    let inner = || Some("model.".len() + end(name.strip_prefix("model.")?)?);
    end(name).or_else(inner)
}

/// The first word of a name, and the second if the first is `model`.
fn beginning(name: &str) -> &str {
    let from = name.strip_prefix("model.").map_or(0, |_| "model.".len());
    name[from..].find('.').map_or(name, |dot| &name[..from + dot])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'r>(names: &[&'r str], shared: bool, decoder: bool) -> Modules<'r> {
        Modules { names: names.to_vec(), anatomy: Anatomy { shared, decoder } }
    }

    fn taker<'r>(modules: &Modules<'r>, tensor: &str) -> Option<&'r str> {
        modules.takers(tensor).0.map(|i| modules.names[i])
    }

    #[test]
    fn a_part_is_known_by_the_names_of_every_version() {
        let modules = of(&["text_decoder", "vision_tower", "multi_modal_projector"], false, false);
        for (tensor, module) in [
            ("language_model.model.layers.0.mlp.up_proj.weight", "text_decoder"),
            ("model.language_model.layers.0.mlp.up_proj.weight", "text_decoder"),
            ("language_model.lm_head.weight", "text_decoder"),
            ("lm_head.weight", "text_decoder"),
            ("model.layers.0.mlp.up_proj.weight", "text_decoder"),
            ("model.embed_tokens.weight", "text_decoder"),
            ("model.norm.weight", "text_decoder"),
            ("vision_tower.vision_model.encoder.layers.0.fc1.weight", "vision_tower"),
            ("model.vision_tower.ln_pre.weight", "vision_tower"),
            ("vision_model.model.layers.0.fc1.weight", "vision_tower"),
            ("visual.blocks.0.attn.qkv.weight", "vision_tower"),
            ("visual.merger.mlp.0.weight", "multi_modal_projector"),
            ("model.visual.deepstack_merger_list.0.norm.weight", "multi_modal_projector"),
            ("model.multi_modal_projector.linear_1.weight", "multi_modal_projector"),
        ] {
            assert_eq!(taker(&modules, tensor), Some(module), "{tensor}");
        }
        assert_eq!(taker(&modules, "model.embed_vision.weight"), None);
    }

    #[test]
    fn what_ties_an_encoder_to_a_decoder_is_shared() {
        let t5 = of(&["encoder", "decoder", "shared"], true, true);
        for (tensor, module) in [
            ("encoder.block.0.layer.0.SelfAttention.q.weight", "encoder"),
            ("decoder.final_layer_norm.weight", "decoder"),
            ("shared.weight", "shared"),
            ("lm_head.weight", "shared"),
            ("decoder.embed_tokens.weight", "shared"),
            ("model.encoder.layers.0.fc1.weight", "encoder"),
        ] {
            assert_eq!(taker(&t5, tensor), Some(module), "{tensor}");
        }
        let whisper = of(&["encoder", "decoder"], false, true);
        assert_eq!(taker(&whisper, "model.decoder.embed_tokens.weight"), Some("decoder"));
        assert_eq!(taker(&whisper, "proj_out.weight"), Some("decoder"));
    }

    #[test]
    fn a_name_is_what_tensors_begin_with_and_the_longer_one_wins() {
        let modules = of(&["model.visual", "visual.merger", "text_decoder", "lm_head", "default"], false, false);
        assert_eq!(taker(&modules, "model.visual.blocks.0.norm1.weight"), Some("model.visual"));
        assert_eq!(taker(&modules, "model.visual.merger.norm.weight"), Some("visual.merger"));
        assert_eq!(taker(&modules, "lm_head.weight"), Some("lm_head"));
        assert_eq!(taker(&modules, "model.language_model.norm.weight"), Some("text_decoder"));
        assert_eq!(taker(&modules, "model.visuals.weight"), Some("default"));
        let twice = of(&["visual", "model.visual"], false, false);
        assert!(twice.takers("model.visual.x").1.is_some());
        let aliases = of(&["vision_tower", "vision_model"], false, false);
        assert!(aliases.takers("visual.x").1.is_some());
    }
}
