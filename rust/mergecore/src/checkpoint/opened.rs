//! Which models are open already? Those that several plans read are opened once, so that what is read for one can serve the others.

use std::collections::BTreeMap;
use std::path::{self, Path, PathBuf};
use std::sync::Mutex;

use super::Checkpoint;
use crate::error::Result;

/// A model's path, and that of the adapter on it. Links are not followed: a link to a weights file may have another config beside it.
type Place = (PathBuf, Option<PathBuf>);

/// Models that stay open, each once.
#[derive(Default)]
pub struct Opened(Mutex<BTreeMap<Place, Checkpoint<'static>>>);

impl Opened {
    /// The model at `path`, with the adapter on it if there is one; opened unless it is open. It is called `reference`.
    ///
    /// # Errors
    /// What `Checkpoint::open` and `adapted` say.
    pub fn checkpoint(&self, reference: &str, path: &Path, adapter: Option<&Path>) -> Result<Checkpoint<'static>> {
        let whole = |path: &Path| path::absolute(path).unwrap_or_else(|_| path.into());
        let place = (whole(path), adapter.map(whole));
        let mut opened = self.0.lock().expect("no holder panics");
        let model = match opened.get(&place) {
            Some(model) => model.clone(),
            None => {
                let plain = Checkpoint::open(reference, path)?;
                let model = adapter.iter().try_fold(plain, |model, adapter| model.adapted(adapter))?;
                opened.insert(place, model.clone());
                model
            }
        };
        Ok(Checkpoint { reference: reference.into(), path: path.into(), adapter: adapter.map(Into::into), ..model })
    }
}
