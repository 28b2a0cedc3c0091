//! Which of a model's rows stands where in the output's vocabulary?
//!
//! Models whose tokenizers differ are brought to one vocabulary while they are read: embeddings and heads (their biases, too) are gathered row
//! by row, as maps say that were made from the tokenizers. A token that a model lacks gets a row that is made: another model's, the mean of
//! several, or zero. Nothing is copied beforehand; which tensors have a vocabulary for their first axis is told by their names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use serde_json::{json, Value as Json};

use super::{Bytes, Checkpoint, Tensor};
use crate::dtype::{Dtype, Real};
use crate::error::{Error, Result};
use crate::names;

/// Elements that are read of a tensor at a time.
const READ: usize = 1 << 14;

/// The output's vocabulary, and how each model's rows become its rows.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary {
    /// Rows of the output's embeddings and heads.
    pub rows: u64,
    /// By the reference of a model: where each row of the output comes from.
    pub maps: BTreeMap<String, Arc<[Origin]>>,
    /// Rows that no single model has: each is the mean of rows of models, or zero if there are none.
    pub made: Vec<Vec<(String, u64)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The model's own row of this number.
    Own(u64),
    /// The row of this number in `made`.
    Made(usize),
    /// A row of no token: the mean of the model's rows that are some token's (Hewitt 2021, "Initializing new word embeddings").
    Mean,
}

impl Origin {
    /// As whoever makes maps writes them: a row, or `!number` of a made one, or the least number for a mean.
    pub fn from_code(code: i64) -> Origin {
        match code {
            i64::MIN => Origin::Mean,
            code if code < 0 => Origin::Made(!code as usize),
            code => Origin::Own(code as u64),
        }
    }

    fn code(self) -> i64 {
        match self {
            Origin::Own(row) => row as i64,
            Origin::Made(number) => !(number as i64),
            Origin::Mean => i64::MIN,
        }
    }
}

impl Vocabulary {
    /// Gives every model the output's vocabulary.
    ///
    /// # Errors
    /// A model is in no map; a map does not fit its tensors.
    pub fn align(&self, models: &mut [Checkpoint<'_>]) -> Result<()> {
        let number = |reference: &String| models.iter().position(|model| model.reference == *reference);
        let place = |(reference, row): &(String, u64)| {
            let number =
                number(reference).ok_or_else(|| Error::recipe(format!("a token takes a row of {reference}, which is not merged")))?;
            Ok((number, *row))
        };
        let made = self.made.iter().map(|sources| sources.iter().map(place).collect()).collect::<Result<Vec<Vec<_>>>>()?;
        let made = Arc::new(made);
        let mut aligned = Vec::new();
        for model in models.iter() {
            let map = self.maps.get(&model.reference).ok_or_else(|| Error::model(format!("{}: has no tokenizer", model.reference)))?;
            if let Some(name) = model.tensors.keys().find(|name| names::ends(name, "final_logits_bias")) {
                return Err(Error::model(format!(
                    "tensor {name} of {} has the vocabulary on its second axis, which no tokenizer is aligned for",
                    model.reference
                )));
            }
            let spoken = model.tensors.keys().filter(|name| names::over_vocabulary(name));
            let tensors =
                spoken.chain(heads_lacking(model, models)).map(|name| Ok((name.clone(), self.tensor(name, model, map, &made, models)?)));
            aligned.push(tensors.collect::<Result<Vec<_>>>()?);
        }
        for (model, tensors) in models.iter_mut().zip(aligned) {
            model.tensors.extend(tensors);
        }
        Ok(())
    }

    /// One tensor with the rows of the output.
    fn tensor<'a>(
        &self,
        name: &str,
        model: &Checkpoint<'a>,
        map: &Arc<[Origin]>,
        made: &Arc<Vec<Made>>,
        models: &[Checkpoint<'a>],
    ) -> Result<Tensor<'a>> {
        let own = standing_for(model, name).map_or_else(|| model.tensor(name), Ok)?.clone();
        let refuse = |what: String| Err(Error::model(format!("tensor {name} of {} {what}", model.reference)));
        if !own.dtype.is_float() || own.shape.is_empty() {
            return refuse(format!("is {} {:?}: it cannot be given another vocabulary", own.dtype.name(), own.shape));
        }
        let own_row = |origin: &Origin| if let Origin::Own(row) = origin { Some(*row) } else { None };
        if let Some(last) = map.iter().filter_map(own_row).max().filter(|last| *last >= own.shape[0]) {
            return refuse(format!("has {} rows, and the tokenizer of the model has a token for row {last}", own.shape[0]));
        }
        let all: Vec<Option<Tensor>> = models.iter().map(|model| standing_for(model, name).cloned()).collect();
        for (number, row) in made.iter().flatten() {
            let reference = &models[*number].reference;
            match &all[*number] {
                None => return refuse(format!("needs a row of {reference}, which has no such tensor")),
                Some(other) if other.shape.get(1..) != own.shape.get(1..) || *row >= other.shape[0] => {
                    return refuse(format!("has shape {:?}, and row {row} of {:?} in {reference} does not fit it", own.shape, other.shape));
                }
                Some(_) => {}
            }
        }
        let shape = [&[self.rows], &own.shape[1..]].concat();
        let wide = all.iter().flatten().chain([&own]).any(|tensor| tensor.read_as() == Dtype::F64);
        let source: Arc<dyn Bytes + 'a> = match wide {
            true => Arc::new(Aligned::<f64>::new(&own, map, made, all)),
            false => Arc::new(Aligned::<f32>::new(&own, map, made, all)),
        };
        Ok(Tensor { shape, source, ..own })
    }

    /// How many rows of each model are its own, borrowed or made: every row is accounted for.
    pub fn account(&self) -> Json {
        let of = |map: &Arc<[Origin]>| {
            let count = |is: &dyn Fn(&Origin) -> bool| map.iter().filter(|origin| is(origin)).count();
            let made = |sources: &dyn Fn(usize) -> bool| count(&|o| matches!(o, Origin::Made(n) if sources(self.made[*n].len())));
            json!({
                "own": count(&|o| matches!(o, Origin::Own(_))),
                "of_another": made(&|sources| sources == 1),
                "mean_of_models": made(&|sources| sources > 1),
                "zero": made(&|sources| sources == 0),
                "mean_of_rows": count(&|o| *o == Origin::Mean),
            })
        };
        let models: BTreeMap<&String, Json> = self.maps.iter().map(|(model, map)| (model, of(map))).collect();
        json!({"rows": self.rows, "models": models})
    }

    /// Tells two vocabularies apart.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (model, map) in &self.maps {
            hasher.update(model.as_bytes()).update(&[0]);
            for origin in map.iter() {
                hasher.update(&origin.code().to_le_bytes());
            }
        }
        hasher.update(format!("{:?}", self.made).as_bytes());
        hasher.finalize().to_hex().to_string()
    }
}

/// The rows whose mean a row is: the number of a model, and a row of its tensor.
type Made = Vec<(usize, u64)>;

/// The tensor of that name; in a model without a head, the embedding that it is tied to.
fn standing_for<'f, 'a>(model: &'f Checkpoint<'a>, name: &str) -> Option<&'f Tensor<'a>> {
    let embedding = || names::embedding(model.tensors.keys()).and_then(|name| model.tensors.get(name));
    model.tensors.get(name).or_else(|| if names::is_head(name) { embedding() } else { None })
}

/// The heads of other models that a tied one lacks: its embedding stands for them, but a token that it has not takes its row of a head.
fn heads_lacking<'f>(model: &'f Checkpoint, models: &'f [Checkpoint]) -> impl Iterator<Item = &'f String> {
    let heads: BTreeSet<&String> = models.iter().flat_map(|other| other.tensors.keys()).filter(|name| names::is_head(name)).collect();
    let without = model.tied() == Some(true) && !model.tensors.keys().any(|name| names::is_head(name));
    heads.into_iter().filter(move |name| without && standing_for(model, name).is_some())
}

/// A tensor whose rows are gathered while it is read.
struct Aligned<'a, R> {
    own: Tensor<'a>,
    map: Arc<[Origin]>,
    made: Arc<Vec<Made>>,
    /// The tensor of every model, which made rows are taken of.
    all: Vec<Option<Tensor<'a>>>,
    width: usize,
    mean: OnceLock<Result<Vec<R>>>,
}

/// Elements that lie together in one place.
struct Piece {
    from: Origin,
    column: usize,
    length: usize,
}

impl<'a, R: Real> Aligned<'a, R> {
    fn new(own: &Tensor<'a>, map: &Arc<[Origin]>, made: &Arc<Vec<Made>>, all: Vec<Option<Tensor<'a>>>) -> Self {
        let width = own.shape[1..].iter().product::<u64>() as usize;
        Aligned { own: own.clone(), map: map.clone(), made: made.clone(), all, width, mean: OnceLock::new() }
    }

    /// The output's elements from `first` on, in pieces: own rows that follow each other are one.
    fn pieces(&self, first: usize, count: usize, see: &mut dyn FnMut(Piece) -> Result<()>) -> Result<()> {
        let mut at = first;
        while at < first + count {
            let (row, column) = (at / self.width, at % self.width);
            let from = self.map[row];
            let mut length = self.width - column;
            if let Origin::Own(own) = from {
                let mut next = 1;
                while length < first + count - at && self.map.get(row + next) == Some(&Origin::Own(own + next as u64)) {
                    length += self.width;
                    next += 1;
                }
            }
            let length = length.min(first + count - at);
            see(Piece { from, column, length })?;
            at += length;
        }
        Ok(())
    }

    fn fill(&self, first: usize, out: &mut [R]) -> Result<()> {
        let (mut raw, mut done) = (Vec::new(), 0);
        self.pieces(first, out.len(), &mut |piece| {
            let out = &mut out[done..done + piece.length];
            done += piece.length;
            match piece.from {
                Origin::Own(row) => values(&self.own, row as usize * self.width + piece.column, &mut raw, out),
                Origin::Made(number) => self.make(&self.made[number], piece.column, &mut raw, out),
                Origin::Mean => {
                    out.copy_from_slice(&self.mean()?[piece.column..][..out.len()]);
                    Ok(())
                }
            }
        })
    }

    /// The mean of rows of models, summed in their order.
    fn make(&self, sources: &Made, column: usize, raw: &mut Vec<u8>, out: &mut [R]) -> Result<()> {
        out.fill(R::ZERO);
        let mut one = vec![R::ZERO; out.len()];
        for (number, row) in sources {
            let tensor = self.all[*number].as_ref().expect("it was looked for when the maps were checked");
            values(tensor, *row as usize * self.width + column, raw, &mut one)?;
            out.iter_mut().zip(&one).for_each(|(sum, x)| *sum = *sum + *x);
        }
        if sources.len() > 1 {
            let count = R::of(sources.len() as f64);
            out.iter_mut().for_each(|sum| *sum = *sum / count);
        }
        Ok(())
    }

    /// The mean of the rows that are some token's; always of all of them and in order, so that it does not depend on who asks first.
    fn mean(&self) -> Result<&[R]> {
        let make = || -> Result<Vec<R>> {
            let tokens: Vec<usize> = (0..self.map.len()).filter(|row| self.map[*row] != Origin::Mean).collect();
            let (mut sums, mut row) = (vec![0.0; self.width], vec![R::ZERO; self.width]);
            for token in &tokens {
                self.fill(token * self.width, &mut row)?;
                sums.iter_mut().zip(&row).for_each(|(sum, x)| *sum += x.f64());
            }
            Ok(sums.into_iter().map(|sum| R::of(sum / tokens.len().max(1) as f64)).collect())
        };
        self.mean.get_or_init(make).as_ref().map(Vec::as_slice).map_err(Clone::clone)
    }

    /// Which element a byte of this tensor belongs to.
    fn element(&self, offset: u64) -> usize {
        ((offset - self.own.offset) / R::DTYPE.size() as u64) as usize
    }

    /// What is read for this tensor: its own model's, and where rows are made any model's.
    fn sources(&self) -> impl Iterator<Item = &Tensor<'a>> {
        let others = self.all.iter().flatten().filter(|other| !self.made.is_empty() && !Arc::ptr_eq(&other.source, &self.own.source));
        [&self.own].into_iter().chain(others)
    }
}

impl<R: Real> Bytes for Aligned<'_, R> {
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let (size, mut first) = (R::DTYPE.size(), self.element(offset));
        let mut strip = vec![R::ZERO; READ.min(out.len() / size)];
        for out in out.chunks_mut(READ * size) {
            let strip = &mut strip[..out.len() / size];
            self.fill(first, strip)?;
            R::encode(R::DTYPE, strip, out);
            first += strip.len();
        }
        Ok(())
    }

    fn will_need(&self, offset: u64, bytes: u64) {
        let (first, count) = (self.element(offset), bytes as usize / R::DTYPE.size());
        // Rows of other models are few, and each is read once.
        let tell = self.pieces(first, count, &mut |piece| {
            if let Origin::Own(row) = piece.from {
                self.own.will_need(row * self.width as u64 + piece.column as u64, piece.length as u64);
            }
            Ok(())
        });
        tell.expect("nothing in it can fail");
    }

    fn yields(&self, _stored: Dtype) -> Dtype {
        R::DTYPE
    }

    fn held(&self) -> u64 {
        let mean = if self.map.contains(&Origin::Mean) { self.width * 8 } else { 0 };
        self.sources().map(|tensor| tensor.source.held()).sum::<u64>() + mean as u64
    }

    fn rest(&self) {
        self.sources().for_each(|tensor| tensor.source.rest());
    }
}

fn values<R: Real>(tensor: &Tensor, first: usize, raw: &mut Vec<u8>, out: &mut [R]) -> Result<()> {
    raw.resize(out.len() * tensor.read_as().size(), 0);
    tensor.read(first as u64, raw)?;
    R::decode(tensor.read_as(), raw, out);
    Ok(())
}
