//! Is a tensor a weight, or the code of one?
//!
//! A quantised tensor merged as if it were a weight gives garbage that loads (the incumbent does so in silence). Names are those that
//! GPTQ, AWQ, bitsandbytes, compressed-tensors and the FP8 formats write.

use std::path::Path;

use serde_json::Value as Json;

use super::header::Entry;
use crate::dtype::Dtype;
use crate::error::{Error, Result};

const NAMES: [&str; 14] = [
    ".qweight",
    ".qzeros",
    ".g_idx",
    ".weight_packed",
    ".weight_scale",
    ".weight_scale_inv",
    ".weight_zero_point",
    ".input_scale",
    ".SCB",
    ".absmax",
    ".quant_map",
    ".nested_absmax",
    "_blocks",
    "_scales",
];

fn refusal(path: &Path, name: &str, why: &str) -> Error {
    Error::model(format!(
        "{}: tensor {name} is quantised ({why}), and its codes are not weights without their scales: merge the unquantised checkpoint",
        path.display()
    ))
}

pub fn check(path: &Path, entry: &Entry) -> Result<()> {
    let name = entry.name.as_str();
    // `x_blocks` and `x_scales` (MXFP4) are bytes; a float tensor may be called so innocently.
    let bytes = matches!(entry.dtype, Dtype::U8 | Dtype::I8);
    let named = NAMES.iter().find(|end| name.ends_with(*end) && (bytes || end.starts_with('.'))).copied();
    let named = named.or(if name.contains(".quant_state.") { Some(".quant_state") } else { None });
    if let Some(end) = named {
        return Err(refusal(path, name, end.trim_start_matches(['.', '_'])));
    }
    if bytes && entry.shape.len() >= 2 && name.ends_with(".weight") {
        return Err(refusal(path, name, entry.dtype.name()));
    }
    Ok(())
}

/// A config that declares quantisation, whatever the tensors are called.
pub fn check_config<'a>(path: &Path, config: Option<&Json>, mut names: impl Iterator<Item = &'a String>) -> Result<()> {
    let declared = config.map(|c| &c["quantization_config"]).filter(|q| !q.is_null());
    match (declared, names.next()) {
        (Some(q), Some(name)) => {
            Err(refusal(path, name, q["quant_method"].as_str().unwrap_or("its config.json has a quantization_config")))
        }
        _ => Ok(()),
    }
}
