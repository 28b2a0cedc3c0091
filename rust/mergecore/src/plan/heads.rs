//! Is the output head the embedding? And does the embedding have further names?
//!
//! Some fine-tunes of a tied model ship a copy of the embedding as lm_head, some a head of their own. A copy is tied again; a head that
//! differs makes the merge untied, and tied models take part in it with their embedding. (The incumbent writes such a head and leaves the
//! config tied, so that loaders ignore it.)
//!
//! Encoder-decoders keep one embedding under up to three names (`shared`, `encoder.embed_tokens`, `decoder.embed_tokens`); newer versions of
//! transformers save only the first. Where a model lacks a copy, the first name stands for it; and if all copies are copies, none is written.

use std::collections::BTreeSet;

use crate::checkpoint::Checkpoint;
use crate::error::Result;

use super::Head;
use crate::names::{self, ends, is_head, EMBEDDINGS};

/// What is to be done about the head; nothing if there is none or all models agree.
pub struct Heads {
    pair: Option<(String, String)>,
    verdict: Head,
    copies: Vec<Copy>,
}

/// A name that some models have for their shared embedding, and others have not.
struct Copy {
    name: String,
    of: String,
    /// It says nothing that the shared embedding does not say.
    dropped: bool,
}

/// `reference` says which of several embeddings is meant; tensors that are `ignored` decide nothing.
pub fn reconcile(reference: &Checkpoint, all: &[&Checkpoint], ignored: &dyn Fn(&str) -> bool) -> Result<Heads> {
    let copies = copies(all, ignored)?;
    let nothing = |copies| Ok(Heads { pair: None, verdict: Head::AsItIs, copies });
    let head = all.iter().flat_map(|m| m.tensors.keys()).find(|name| is_head(name) && !ignored(name));
    // Of several embeddings (T5 has three names for one) the first in this order that all models have.
    let embedding = EMBEDDINGS
        .iter()
        .flat_map(|end| reference.tensors.keys().filter(move |name| ends(name, end)))
        .find(|name| !ignored(name) && all.iter().all(|m| m.tensors.contains_key(*name)));
    let (Some(head), Some(embedding)) = (head, embedding) else { return nothing(copies) };

    let with: Vec<&&Checkpoint> = all.iter().filter(|m| m.tensors.contains_key(head)).collect();
    if with.len() == all.len() && all.iter().all(|m| m.tied() != Some(true)) {
        return nothing(copies);
    }
    // A model that says it is untied and has no head has lost it: that is for the planner to refuse.
    if all.iter().any(|m| !m.tensors.contains_key(head) && m.tied() == Some(false)) {
        return nothing(copies);
    }
    if reference.files.is_empty() {
        // In memory there is no config to tie: whoever passes a head gets one back.
        return Ok(Heads { pair: Some((head.clone(), embedding.clone())), verdict: Head::AsItIs, copies });
    }
    let mut verdict = Head::Tied;
    // The likeliest to differ first: it spares reading the others.
    for model in with.iter().filter(|m| m.tied() != Some(true)).chain(with.iter().filter(|m| m.tied() == Some(true))) {
        if !model.tensor(head)?.same_as(model.tensor(embedding)?)? {
            verdict = Head::Untied;
            break;
        }
    }
    Ok(Heads { pair: Some((head.clone(), embedding.clone())), verdict, copies })
}

/// The copies of shared embeddings that are not in all models; of them all that hold the same.
fn copies(all: &[&Checkpoint], ignored: &dyn Fn(&str) -> bool) -> Result<Vec<Copy>> {
    let mut copies = Vec::new();
    let names: BTreeSet<&String> = all.iter().flat_map(|model| model.tensors.keys()).filter(|name| !ignored(name)).collect();
    for name in names {
        let Some(of) = names::shared_embedding(name).filter(|of| all.iter().all(|model| model.tensors.contains_key(of))) else { continue };
        let with: Vec<&&Checkpoint> = all.iter().filter(|model| model.tensors.contains_key(name)).collect();
        if with.len() < all.len() {
            let mut dropped = true;
            for model in with {
                dropped = dropped && model.tensor(name)?.same_as(model.tensor(&of)?)?;
            }
            copies.push(Copy { name: name.clone(), of, dropped });
        }
    }
    Ok(copies)
}

/// What is to be said where every model lacks the head that its config promises: loaders make one up.
pub fn missing(reference: &Checkpoint, all: &[&Checkpoint]) -> Option<String> {
    let config = reference.config.as_ref()?;
    let generates = config["architectures"][0].as_str().is_some_and(|name| name.ends_with("ForCausalLM"));
    let headless = all.iter().all(|model| !model.tensors.keys().any(|name| is_head(name)));
    (generates && headless && reference.tied() == Some(false)).then(|| {
        format!(
            "no model has an output head, and the config of {} says that it is not the embedding (tie_word_embeddings: false): loaders will \
             make one up",
            reference.reference
        )
    })
}

impl Heads {
    pub fn verdict(&self) -> Head {
        self.verdict
    }

    /// Whether a tensor is a tied head, which is not written.
    pub fn drops(&self, name: &str) -> bool {
        let tied = self.verdict == Head::Tied && self.pair.as_ref().is_some_and(|(head, _)| head == name);
        tied || self.copies.iter().any(|copy| copy.dropped && copy.name == name)
    }

    /// The tensor of `model` that stands for `name`: a tied model's head is its embedding, whose first name stands for the others.
    pub fn source<'n>(&'n self, model: &Checkpoint, name: &'n str) -> &'n str {
        if model.tensors.contains_key(name) {
            return name;
        }
        if let Some(copy) = self.copies.iter().find(|copy| copy.name == name) {
            return &copy.of;
        }
        match &self.pair {
            Some((head, embedding)) if head == name => embedding,
            _ => name,
        }
    }

    pub fn notes(&self) -> Vec<String> {
        let copied = |copy: &Copy| match copy.dropped {
            true => format!("{} is a copy of {}, which not all models have: not written", copy.name, copy.of),
            false => format!("{} differs from {} in a model; those without it take part with {}", copy.name, copy.of, copy.of),
        };
        self.about_head().into_iter().chain(self.copies.iter().map(copied)).collect()
    }

    fn about_head(&self) -> Option<String> {
        let (head, embedding) = self.pair.as_ref()?;
        match self.verdict {
            Head::Tied => Some(format!("{head} equals {embedding}: it is tied and not written")),
            Head::Untied => Some(format!("{head} differs from {embedding} in a model: the merge is untied (tie_word_embeddings: false)")),
            Head::AsItIs => None,
        }
    }
}
