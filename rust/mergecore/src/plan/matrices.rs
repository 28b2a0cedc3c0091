//! Of which matrices is a tensor made, and which of them are merged or modified whole?
//!
//! Most are one. A tensor of experts is one an expert; what an architecture keeps in one tensor to multiply at once (q, k and v; gate and
//! up) is taken apart, since the singular values of two matrices stacked are neither's. Names say that it is so, and the shapes of the
//! tensors beside it where one part ends.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value as Json;

use crate::matrices::{Shape, Which};
use crate::names;

/// What of a tensor is merged or modified whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Whole {
    /// Pieces that may be held in memory one after the other.
    pub units: Vec<Unit>,
    /// The method merges the matrices, rather than the elements.
    pub solved: bool,
    /// Which of the modifiers act on the matrices.
    pub reshaped: Vec<bool>,
}

/// Elements that lie side by side.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    pub elements: Range<u64>,
    pub parts: Vec<Part>,
}

/// A matrix within a unit, which is a larger one.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// "" for the only one.
    pub label: String,
    /// The unit's columns, and which rows and columns of it these are.
    pub width: usize,
    pub rows: Steps,
    pub columns: Steps,
}

/// `groups` times `count` numbers side by side, `stride` from one group to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    pub start: usize,
    pub groups: usize,
    pub count: usize,
    pub stride: usize,
}

impl Steps {
    fn run(start: usize, count: usize) -> Steps {
        Steps { start, groups: 1, count, stride: count }
    }

    pub fn total(self) -> usize {
        self.groups * self.count
    }

    /// Where number `i` is.
    pub fn at(self, i: usize) -> usize {
        self.start + i / self.count * self.stride + i % self.count
    }
}

impl Part {
    pub fn shape(&self, element: u64) -> Shape {
        Shape { rows: self.rows.total() as u64, columns: self.columns.total() as u64, element }
    }

    pub fn size(&self) -> [usize; 2] {
        [self.rows.total(), self.columns.total()]
    }

    /// Whether it is the unit itself.
    pub fn is_all(&self, elements: u64) -> bool {
        (self.rows.total() * self.columns.total()) as u64 == elements && self.columns.groups == 1
    }

    /// Runs of elements side by side: where in the unit, where in the part, how many.
    pub fn runs(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        let row = move |i: usize| {
            let (from, to) = (self.rows.at(i) * self.width, i * self.columns.total());
            let Steps { start, groups, count, stride } = self.columns;
            (0..groups).map(move |group| (from + start + group * stride, to + group * count, count))
        };
        (0..self.rows.total()).flat_map(row)
    }
}

/// What else is known of a model when one tensor of it is looked at.
pub struct Surroundings<'s> {
    pub shapes: BTreeMap<&'s str, &'s [u64]>,
    pub config: Option<&'s Json>,
}

/// The last words that name the seven projections, and what holds several of them.
const PROJECTIONS: [&str; 9] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj", "gate_up_proj"];

/// Whether a tensor is one that `which` takes for a matrix (or several). One without a name is what it is in memory: an array.
pub fn takes(which: Which, name: &str, shape: &[u64]) -> bool {
    let axes = shape.len() == 2 || (shape.len() == 3 && of_experts(name));
    // Experts' biases stand in one tensor of two axes.
    let matrix = axes && shape.iter().all(|n| *n > 0) && !name.ends_with("bias");
    match which {
        Which::None => false,
        _ if !matrix => false,
        Which::All => true,
        Which::Linear => !names::over_vocabulary(name),
        Which::Projections => name.is_empty() || PROJECTIONS.contains(&word(name)),
    }
}

fn of_experts(name: &str) -> bool {
    name.contains("expert")
}

/// What a tensor's name calls it: `q_proj` of `model.layers.0.self_attn.q_proj.weight`.
fn word(name: &str) -> &str {
    let name = name.strip_suffix(".weight").unwrap_or(name);
    &name[name.rfind('.').map_or(0, |dot| dot + 1)..]
}

/// The units of a tensor with two axes, or three. A unit may be less than the tensor where that is a whole number of `block`s.
pub fn units(name: &str, shape: &[u64], block: u64, around: &Surroundings) -> Vec<Unit> {
    let experts = if shape.len() == 3 { shape[0] as usize } else { 1 };
    let (rows, columns) = (shape[shape.len() - 2] as usize, shape[shape.len() - 1] as usize);
    let cuts = cuts(name, rows, columns, around);
    let size = (rows * columns) as u64;
    let apart = experts > 1 && size.is_multiple_of(block);
    let part = |expert: usize, (label, own_rows, own_columns): &(&str, Steps, Steps)| {
        let number = if experts > 1 { expert.to_string() } else { String::new() };
        let dot = if number.is_empty() || label.is_empty() { "" } else { "." };
        let shift = if apart { 0 } else { expert * rows };
        Part {
            label: format!("{number}{dot}{label}"),
            width: columns,
            rows: Steps { start: own_rows.start + shift, ..*own_rows },
            columns: *own_columns,
        }
    };
    let parts = |expert: usize| cuts.iter().map(move |cut| (expert, cut)).map(|(expert, cut)| part(expert, cut)).collect::<Vec<_>>();
    if apart {
        let unit = |expert: usize| Unit { elements: expert as u64 * size..(expert as u64 + 1) * size, parts: parts(expert) };
        (0..experts).map(unit).collect()
    } else {
        vec![Unit { elements: 0..experts as u64 * size, parts: (0..experts).flat_map(parts).collect() }]
    }
}

/// Where a matrix is taken apart: labels, rows, columns.
fn cuts(name: &str, rows: usize, columns: usize, around: &Surroundings) -> Vec<(&'static str, Steps, Steps)> {
    let (all_rows, all_columns) = (Steps::run(0, rows), Steps::run(0, columns));
    let whole = || vec![("", all_rows, all_columns)];
    let sibling = |others: &[&str]| {
        let start = name.strip_suffix(".weight").unwrap_or(name).strip_suffix(word(name))?;
        let end = if name.ends_with(".weight") { ".weight" } else { "" };
        others.iter().find_map(|other| around.shapes.get(format!("{start}{other}{end}").as_str()))
    };
    // Parts one after the other along one axis.
    let along = |rows_are_cut: bool, parts: &[(&'static str, usize)]| {
        let mut start = 0;
        let mut cut = |(label, count): &(&'static str, usize)| {
            let steps = Steps::run(start, *count);
            start += count;
            if rows_are_cut {
                (*label, steps, all_columns)
            } else {
                (*label, all_rows, steps)
            }
        };
        parts.iter().map(&mut cut).collect::<Vec<_>>()
    };
    match word(name) {
        // As many rows of q as the output projection has columns; k and v share the rest.
        "qkv_proj" | "Wqkv" | "W_pack" | "qkv" | "c_attn" => {
            let output = sibling(&["o_proj", "out_proj", "Wo", "c_proj", "proj", "dense"]);
            let Some(&&[first, second]) = output else { return whole() };
            // Linear layers have outputs as rows, GPT-2's Conv1D as columns; where both could be, the fused axis is the longer one.
            let linear = columns as u64 == first && second < rows as u64;
            let conv = rows as u64 == second && first < columns as u64;
            let cut_rows = linear && (rows >= columns || !conv);
            let (length, q) = if cut_rows { (rows, second as usize) } else { (columns, first as usize) };
            match length.checked_sub(q).filter(|rest| (linear || conv) && *rest > 0 && rest.is_multiple_of(2)) {
                Some(rest) => along(cut_rows, &[("q", q), ("k", rest / 2), ("v", rest / 2)]),
                None => whole(),
            }
        }
        // torch's own attention.
        "in_proj_weight" if rows == 3 * columns => along(true, &[("q", columns), ("k", columns), ("v", columns)]),
        // GPT-NeoX and BLOOM: q, k and v of one head after those of the other.
        "query_key_value" => {
            let config = |key: &str| around.config.and_then(|config| config[key].as_u64()).map(|n| n as usize);
            let interleaved = around.config.is_some_and(|config| matches!(config["model_type"].as_str(), Some("gpt_neox" | "bloom")));
            match config("num_attention_heads").or(config("n_head")) {
                Some(heads) if interleaved && heads > 0 && rows.is_multiple_of(3 * heads) => {
                    let size = rows / 3 / heads;
                    let cut = |(i, label)| (label, Steps { start: i * size, groups: heads, count: size, stride: 3 * size }, all_columns);
                    ["q", "k", "v"].into_iter().enumerate().map(cut).collect()
                }
                _ => whole(),
            }
        }
        "gate_up_proj" => {
            // down_proj undoes it: its rows are our columns, and its columns half of our rows; or the other way round, where both are
            // stored by their inputs (Llama 4, gpt-oss).
            let down = sibling(&["down_proj"]).and_then(|shape| shape.last_chunk::<2>()).map(|shape| shape.map(|n| n as usize));
            let by_inputs = |[first, second]: [usize; 2]| rows == second && columns == 2 * first;
            let by_outputs = |[first, second]: [usize; 2]| columns == first && rows == 2 * second;
            let cut_rows = down.is_none_or(|down| by_outputs(down) || !by_inputs(down));
            let axis = if cut_rows { rows } else { columns };
            // gpt-oss has gate and up in turns, and a bias beside them.
            if !cut_rows && sibling(&["gate_up_proj_bias"]).is_some() && axis.is_multiple_of(2) {
                let cut = |(i, label)| (label, all_rows, Steps { start: i, groups: axis / 2, count: 1, stride: 2 });
                return ["gate", "up"].into_iter().enumerate().map(cut).collect();
            }
            match axis.is_multiple_of(2) {
                true => along(cut_rows, &[("gate", axis / 2), ("up", axis / 2)]),
                false => whole(),
            }
        }
        _ => whole(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(name: &str, shape: &[u64], others: &[(&str, &[u64])], config: Option<Json>) -> Vec<(String, usize, usize)> {
        let around = Surroundings { shapes: others.iter().copied().collect(), config: config.as_ref() };
        let units = units(name, shape, 4, &around);
        units.into_iter().flat_map(|unit| unit.parts).map(|part| (part.label, part.rows.total(), part.columns.total())).collect()
    }

    fn parts(list: &[(&str, usize, usize)]) -> Vec<(String, usize, usize)> {
        list.iter().map(|(label, rows, columns)| (label.to_string(), *rows, *columns)).collect()
    }

    #[test]
    fn fused_matrices_are_taken_apart_where_the_tensors_beside_them_say() {
        let out: &[u64] = &[8, 8];
        let of = |name: &str, shape: &[u64], others: &[(&str, &[u64])]| labels(name, shape, others, None);
        assert_eq!(of("l.qkv_proj.weight", &[12, 8], &[("l.o_proj.weight", out)]), parts(&[("q", 8, 8), ("k", 2, 8), ("v", 2, 8)]));
        assert_eq!(
            of("h.0.attn.c_attn.weight", &[8, 24], &[("h.0.attn.c_proj.weight", out)]),
            parts(&[("q", 8, 8), ("k", 8, 8), ("v", 8, 8)])
        );
        assert_eq!(of("h.0.attn.c_attn.weight", &[8, 24], &[]), parts(&[("", 8, 24)]));
        assert_eq!(
            of("mlp.gate_up_proj.weight", &[20, 8], &[("mlp.down_proj.weight", &[8, 10])]),
            parts(&[("gate", 10, 8), ("up", 10, 8)])
        );
        let neox = labels(
            "a.query_key_value.weight",
            &[24, 8],
            &[],
            Some(serde_json::json!({"model_type": "gpt_neox", "num_attention_heads": 2})),
        );
        assert_eq!(neox, parts(&[("q", 8, 8), ("k", 8, 8), ("v", 8, 8)]));
    }

    #[test]
    fn experts_are_matrices_of_their_own() {
        let of = |shape: &[u64], down: &[u64], bias: bool| {
            let mut others = vec![("e.experts.down_proj", down)];
            others.extend(bias.then_some(("e.experts.gate_up_proj_bias", &[2u64, 20][..])));
            labels("e.experts.gate_up_proj", shape, &others, None)
        };
        let rows = parts(&[("0.gate", 10, 8), ("0.up", 10, 8), ("1.gate", 10, 8), ("1.up", 10, 8)]);
        assert_eq!(of(&[2, 20, 8], &[2, 8, 10], false), rows);
        let columns = parts(&[("0.gate", 8, 10), ("0.up", 8, 10), ("1.gate", 8, 10), ("1.up", 8, 10)]);
        assert_eq!(of(&[2, 8, 20], &[2, 10, 8], false), columns);
        assert_eq!(of(&[2, 8, 20], &[2, 10, 8], true), columns);
    }

    #[test]
    fn the_runs_of_a_part_are_where_its_elements_lie() {
        let part = Part {
            label: String::new(),
            width: 6,
            rows: Steps { start: 1, groups: 2, count: 1, stride: 2 },
            columns: Steps { start: 1, groups: 2, count: 2, stride: 3 },
        };
        assert_eq!(part.runs().collect::<Vec<_>>(), [(7, 0, 2), (10, 2, 2), (19, 4, 2), (22, 6, 2)]);
    }

    #[test]
    fn which_tensors_are_matrices() {
        let two: &[u64] = &[4, 4];
        assert!(takes(Which::Linear, "model.layers.0.self_attn.q_proj.weight", two));
        assert!(!takes(Which::Linear, "model.embed_tokens.weight", two) && takes(Which::All, "model.embed_tokens.weight", two));
        assert!(!takes(Which::Linear, "model.norm.weight", &[4]) && !takes(Which::All, "conv.weight", &[4, 4, 3]));
        assert!(
            takes(Which::Linear, "mlp.experts.down_proj", &[2, 4, 4]) && takes(Which::Projections, "mlp.experts.down_proj", &[2, 4, 4])
        );
        assert!(takes(Which::Projections, "", two) && !takes(Which::Projections, "h.0.mlp.c_fc.weight", two));
        assert!(!takes(Which::None, "", two));
    }
}
