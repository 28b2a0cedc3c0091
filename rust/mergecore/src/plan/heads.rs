//! Is the output head the embedding?
//!
//! Some fine-tunes of a tied model ship a copy of the embedding as lm_head, some a head of their own. A copy is tied again; a head that
//! differs makes the merge untied, and tied models take part in it with their embedding. (The incumbent writes such a head and leaves the
//! config tied, so that loaders ignore it.)

use crate::checkpoint::Checkpoint;
use crate::error::Result;

use super::Head;
use crate::names::{ends, is_head, EMBEDDINGS};

/// What is to be done about the head; nothing if there is none or all models agree.
pub struct Heads {
    pair: Option<(String, String)>,
    verdict: Head,
}

/// `reference` says which of several embeddings is meant; tensors that are `ignored` decide nothing.
pub fn reconcile(reference: &Checkpoint, all: &[&Checkpoint], ignored: &dyn Fn(&str) -> bool) -> Result<Heads> {
    let nothing = Ok(Heads { pair: None, verdict: Head::AsItIs });
    let head = all.iter().flat_map(|m| m.tensors.keys()).find(|name| is_head(name) && !ignored(name));
    // Of several embeddings (T5 has three names for one) the first in this order that all models have.
    let embedding = EMBEDDINGS
        .iter()
        .flat_map(|end| reference.tensors.keys().filter(move |name| ends(name, end)))
        .find(|name| !ignored(name) && all.iter().all(|m| m.tensors.contains_key(*name)));
    let (Some(head), Some(embedding)) = (head, embedding) else { return nothing };

    let with: Vec<&&Checkpoint> = all.iter().filter(|m| m.tensors.contains_key(head)).collect();
    if with.len() == all.len() && all.iter().all(|m| m.tied() != Some(true)) {
        return nothing;
    }
    // A model that says it is untied and has no head has lost it: that is for the planner to refuse.
    if all.iter().any(|m| !m.tensors.contains_key(head) && m.tied() == Some(false)) {
        return nothing;
    }
    if reference.files.is_empty() {
        // In memory there is no config to tie: whoever passes a head gets one back.
        return Ok(Heads { pair: Some((head.clone(), embedding.clone())), verdict: Head::AsItIs });
    }
    let mut verdict = Head::Tied;
    for model in with {
        if !model.tensor(head)?.same_as(model.tensor(embedding)?)? {
            verdict = Head::Untied;
            break;
        }
    }
    Ok(Heads { pair: Some((head.clone(), embedding.clone())), verdict })
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
        self.verdict == Head::Tied && self.pair.as_ref().is_some_and(|(head, _)| head == name)
    }

    /// The tensor of `model` that stands for `name`: a tied model's head is its embedding.
    pub fn source<'n>(&'n self, model: &Checkpoint, name: &'n str) -> &'n str {
        match &self.pair {
            Some((head, embedding)) if head == name && !model.tensors.contains_key(name) => embedding,
            _ => name,
        }
    }

    pub fn note(&self) -> Option<String> {
        let (head, embedding) = self.pair.as_ref()?;
        match self.verdict {
            Head::Tied => Some(format!("{head} equals {embedding}: it is tied and not written")),
            Head::Untied => Some(format!("{head} differs from {embedding} in a model: the merge is untied (tie_word_embeddings: false)")),
            Head::AsItIs => None,
        }
    }
}
