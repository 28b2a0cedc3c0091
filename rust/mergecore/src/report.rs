//! What happened? The manifest that stays with the output, and the report that the caller gets.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{json, Value as Json};

use crate::checkpoint::vocabulary::Vocabulary;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::{Error, Result};
use crate::kernels::{angle, mask};
use crate::layout::{Layout, INDEX, MANIFEST};
use crate::names;
use crate::plan::matrices::Part;
use crate::plan::{Head, Job, Plan, Stack, Work};
use crate::recipe::Modifier;
use crate::write::journal::Record;
use crate::write::{documents, SideFile};

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub fn pretty(json: &Json) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(json).expect("JSON values can be written");
    text.push(b'\n');
    text
}

pub fn hash_of(json: &Json) -> String {
    blake3::hash(json.to_string().as_bytes()).to_hex().to_string()
}

/// Recognises an unfinished merge as the same: everything that decides the output's bytes, but for the inputs' content.
pub fn recipe_hash(plan: &Plan, layout: &Layout) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(VERSION.as_bytes());
    hasher.update(mask::VERSION.as_bytes());
    hasher.update(plan.recipe.resolved().to_string().as_bytes());
    for file in &layout.files {
        hasher.update(&file.header);
    }
    if let Some(vocabulary) = &plan.vocabulary {
        hasher.update(vocabulary.hash().as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The inputs' fingerprints, by reference.
pub fn fingerprints(plan: &Plan) -> Result<Json> {
    let one = |c: &Checkpoint| {
        let mut print = json!({"model": c.reference, "path": c.path, "files": c.fingerprint()?});
        if let Some(adapter) = &c.adapter {
            print["adapter"] = json!(adapter);
        }
        if documents::is_document(&c.path) {
            of_document(c, &mut print)?;
        }
        Ok(print)
    };
    plan.checkpoints.iter().map(one).collect::<Result<Vec<Json>>>().map(Json::Array)
}

/// A document goes with the output's folder, so that where and when it was made says nothing: what it was made of does.
fn of_document(c: &Checkpoint, print: &mut Json) -> Result<()> {
    let (bytes, _) = manifest_in(&c.path)?;
    let entries = print.as_object_mut().expect("a print is an object");
    entries.shift_remove("path");
    entries.insert("manifest_blake3".into(), json!(blake3::hash(&bytes).to_hex().as_str()));
    for (file, print) in c.files.iter().zip(entries["files"].as_array_mut().expect("a list")) {
        if file.path.starts_with(&c.path) {
            print.as_object_mut().expect("a file's print is an object").shift_remove("modified_ns");
        }
    }
    Ok(())
}

/// What the documents among the inputs, and theirs in turn, were made of: they themselves go. Each once, however many use it.
fn lineage(plan: &Plan) -> Result<Json> {
    let mut documents = json!({});
    for c in plan.checkpoints.iter().filter(|c| documents::is_document(&c.path)) {
        let (_, manifest) = manifest_in(&c.path)?;
        let name = c.path.file_name().expect("a document has a name").to_string_lossy();
        extend(&mut documents, manifest["documents"].clone());
        extend(&mut documents, json!({name: {"recipe": manifest["recipe"], "inputs": manifest["inputs"]}}));
    }
    Ok(documents)
}

fn manifest_in(folder: &Path) -> Result<(Vec<u8>, Json)> {
    let path = folder.join(MANIFEST);
    let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, "reading", &e))?;
    let manifest = serde_json::from_slice(&bytes).map_err(|e| Error::model(format!("{}: is damaged ({e}); delete it", path.display())))?;
    Ok((bytes, manifest))
}

/// Whether `folder` holds what this merge would make: its manifest says the same of recipe, versions, inputs and files, and each file is
/// there at its size.
pub fn is_made(plan: &Plan, layout: &Layout, side_files: &[(String, SideFile)], folder: &Path) -> Result<bool> {
    let Ok((_, found)) = manifest_in(folder) else { return Ok(false) };
    let mut asked = head(plan, layout, &fingerprints(plan)?);
    asked["side_files"] = json!(described(side_files)?);
    // Both have been through the same parser: JSON's numbers need not come back to the last bit.
    let asked: Json = serde_json::from_str(&asked.to_string()).expect("it was just written");
    let same = |(key, value): (&String, &Json)| match (key.as_str(), found[key].as_array()) {
        ("side_files", Some(found)) => value.as_array().is_some_and(|v| v.iter().eq(found.iter().filter(|file| file["name"] != INDEX))),
        _ => found[key] == *value,
    };
    let files = ["files", "side_files"].into_iter().flat_map(|key| found[key].as_array().into_iter().flatten());
    let there = |file: &Json| {
        let name = file["name"].as_str().unwrap_or_default();
        std::fs::metadata(folder.join(name)).is_ok_and(|meta| Some(meta.len()) == file["bytes"].as_u64())
    };
    Ok(asked.as_object().expect("a manifest is an object").iter().all(same) && files.into_iter().all(there))
}

/// √ of a sum of squares over the tensors, in the order of their names.
fn norm(records: &BTreeMap<String, Record>, i: usize) -> Option<f64> {
    let squares: Vec<f64> = records.values().filter_map(|r| r.delta).map(|d| d[i]).collect();
    (!squares.is_empty()).then(|| angle::tree(&squares).sqrt())
}

/// JSON has no NaN and no infinity; a norm that is one is null in the manifest, beside the counts that say why.
fn finite(x: Option<f64>) -> Json {
    x.filter(|x| x.is_finite()).map_or(Json::Null, |x| json!(x))
}

/// mergecore.json. It has no times and no host: the same merge writes the same bytes.
pub fn manifest(
    plan: &Plan,
    layout: &Layout,
    inputs: &Json,
    records: &BTreeMap<String, Record>,
    side_files: &[&(String, SideFile)],
) -> Result<Json> {
    let tensor = |(job, (file, _)): (&Job, &(usize, u64))| {
        let record = &records[&job.name];
        let mut tensor = json!({
            "name": job.name,
            "file": layout.files[*file].name,
            "dtype": job.dtype.name(),
            "shape": job.shape,
            "how": if matches!(job.work, Work::Copy(_)) { "copied" } else { "merged" },
            "blake3": record.digest,
            "delta_norm": finite(record.delta.map(|d| d[0].sqrt())),
            "delta_norm_rounded": finite(record.delta.map(|d| d[1].sqrt())),
            "nan": record.unfinite[0],
            "inf": record.unfinite[1],
        });
        if !record.spectra.is_null() {
            tensor["spectra"] = record.spectra.clone();
        }
        tensor
    };
    let mut manifest = head(plan, layout, inputs);
    let more = json!({
        "delta_norm": finite(norm(records, 0)),
        "delta_norm_rounded": finite(norm(records, 1)),
        "nan": records.values().map(|r| r.unfinite[0]).sum::<u64>(),
        "inf": records.values().map(|r| r.unfinite[1]).sum::<u64>(),
        "side_files": described(side_files.iter().copied())?,
        "tensors": plan.jobs.iter().zip(&layout.places).map(tensor).collect::<Vec<_>>(),
    });
    extend(&mut manifest, more);
    match lineage(plan)? {
        Json::Object(documents) if documents.is_empty() => {}
        documents => extend(&mut manifest, json!({"documents": documents})),
    }
    Ok(manifest)
}

/// The part of the manifest that is known before anything is merged.
fn head(plan: &Plan, layout: &Layout, inputs: &Json) -> Json {
    let weights =
        layout.files.iter().map(|f| json!({"name": f.name, "bytes": f.bytes, "header_blake3": blake3::hash(&f.header).to_hex().as_str()}));
    json!({
        "mergecore": VERSION,
        "manifest": 1,
        "mask_generator": mask::VERSION,
        "recipe": plan.recipe.resolved(),
        "seed": plan.recipe.seed,
        "vocabulary": plan.vocabulary.as_ref().map(Vocabulary::account),
        "inputs": inputs,
        "ignored": plan.ignored,
        "notes": plan.notes,
        "files": weights.collect::<Vec<_>>(),
    })
}

fn described<'a>(side_files: impl IntoIterator<Item = &'a (String, SideFile)>) -> Result<Vec<Json>> {
    let one = |(name, content): &(String, SideFile)| {
        let bytes = match content {
            SideFile::Content(bytes) => bytes.clone(),
            SideFile::CopyOf(path) => std::fs::read(path).map_err(|e| Error::io(path, "reading", &e))?,
        };
        Ok(json!({"name": name, "bytes": bytes.len(), "blake3": blake3::hash(&bytes).to_hex().as_str()}))
    };
    side_files.into_iter().map(one).collect()
}

/// What a plan says before anything is written.
pub fn summary(plan: &Plan, layout: &Layout, threads: usize, memory_bytes: u64) -> Json {
    let copied: Vec<&str> = plan.jobs.iter().filter(|job| matches!(job.work, Work::Copy(_))).map(|job| job.name.as_str()).collect();
    let mut summary = json!({
        "recipe": plan.recipe.resolved(),
        "parameter_count": plan.parameter_count(),
        "bytes_to_read": plan.bytes_to_read(),
        "bytes_to_write": plan.bytes_to_write(),
        "passes": plan.passes(),
        "memory_bytes": memory_bytes,
        "threads": threads,
        "dtype": plan.dtype().name(),
        "tied": plan.head == Head::Tied || (!plan.has_head() && plan.reference_tied() == Some(true)),
        "untied": plan.head == Head::Untied || (plan.has_head() && plan.donor_tied() == Some(true)),
        "vocabulary": plan.vocabulary.as_ref().map(Vocabulary::account),
        "matrices": matrices(plan),
        "layers": plan.layers(),
        "vocabulary_rows": names::embedding(plan.jobs.iter().map(|job| &job.name)).and_then(|name| rows(plan, name)),
        "stacks": plan.stacks().iter().map(stack).collect::<Vec<_>>(),
        "files": layout.files.iter().map(|f| json!({"name": f.name, "bytes": f.bytes})).collect::<Vec<_>>(),
        "ignored": plan.ignored,
        "copied": copied,
        "notes": plan.notes,
        "warnings": plan.warnings,
    });
    extend(&mut summary, request(plan));
    summary
}

fn rows(plan: &Plan, name: &str) -> Option<u64> {
    plan.jobs.iter().find(|job| job.name == name).and_then(|job| job.shape.first().copied())
}

/// How many tensors are merged or modified as matrices, how many matrices those are, and the largest; null where none could be.
fn matrices(plan: &Plan) -> Json {
    let parts = |job: &Job| job.whole.iter().flat_map(|whole| whole.units.iter().flat_map(|unit| &unit.parts)).map(Part::size).collect();
    let all: Vec<Vec<[usize; 2]>> = plan.jobs.iter().map(parts).collect();
    let largest = all.iter().flatten().max_by_key(|[rows, columns]| rows * columns);
    match largest {
        None => Json::Null,
        Some(largest) => json!({
            "tensors": all.iter().filter(|parts| !parts.is_empty()).count(), "matrices": all.iter().map(Vec::len).sum::<usize>(), "largest": largest,
        }),
    }
}

fn stack(stack: &Stack) -> Json {
    json!({"name": stack.name, "part": stack.part, "origins": stack.origins})
}

/// What is done to every tensor, in the order in which it is read: for `show`.
pub fn steps(plan: &Plan) -> Json {
    let step = |job: &Job| {
        json!({
            "name": job.name,
            "dtype": job.dtype.name(),
            "shape": job.shape,
            "how": if matches!(job.work, Work::Copy(_)) { "copied" } else { "merged" },
            "sources": job.origins.iter().map(|origin| json!({"model": origin.model, "tensor": origin.tensor})).collect::<Vec<_>>(),
            "matrices": job.whole.as_ref().map(|whole| whole.units.iter().flat_map(|unit| &unit.parts).map(|part| &part.label).collect::<Vec<_>>()),
            "parameters": job.bound.as_ref().map(|bound| bound.params.json()),
        })
    };
    json!(plan.jobs.iter().map(step).collect::<Vec<_>>())
}

/// Name, type and shape of every tensor of the output, in the order in which it is read.
pub fn tensors(plan: &Plan) -> Json {
    json!(plan.jobs.iter().map(|job| json!([job.name, job.dtype.name(), job.shape])).collect::<Vec<_>>())
}

/// The request as it was understood: the part that summaries and reports share.
fn request(plan: &Plan) -> Json {
    let recipe = &plan.recipe;
    json!({
        "method": recipe.spec.name,
        "base": recipe.base,
        "models": recipe.models(),
        "onto": recipe.onto,
        "parameters": recipe.parameters(),
        "tensors": plan.jobs.len(),
        "seed": recipe.seed,
        "modifiers": recipe.modifiers.iter().map(|m| json!({"name": m.spec.name, "parameters": m.params.json()})).collect::<Vec<_>>(),
    })
}

fn extend(json: &mut Json, more: Json) {
    if let (Json::Object(json), Json::Object(more)) = (json, more) {
        json.extend(more);
    }
}

/// What a model holds, for `show`.
pub fn contents(checkpoint: &Checkpoint) -> Json {
    let file_name = |i: usize| checkpoint.files[i].path.file_name().map(|n| n.to_string_lossy().into_owned());
    let tensors: Vec<Json> = checkpoint
        .tensors
        .iter()
        .map(|(name, t)| json!({"name": name, "dtype": t.dtype.name(), "shape": t.shape, "file": file_name(t.file)}))
        .collect();
    json!({
        "path": checkpoint.path,
        "format": checkpoint.format(),
        "passed_over": checkpoint.passed_over,
        "files": checkpoint.files.iter().enumerate().map(|(i, f)| json!({"name": file_name(i), "bytes": f.length})).collect::<Vec<_>>(),
        "parameter_count": checkpoint.tensors.values().map(Tensor::elements).sum::<u64>(),
        "bytes": checkpoint.tensors.values().map(Tensor::bytes).sum::<u64>(),
        "vocabulary_rows": names::embedding(checkpoint.tensors.keys()).map(|name| checkpoint.tensors[name].shape.first()),
        "layers": names::layers(checkpoint.tensors.keys().map(String::as_str)),
        "tensors": tensors,
    })
}

/// What a finished merge has to tell.
pub struct Report(pub Json);

impl Report {
    pub fn new(
        plan: &Plan,
        layout: &Layout,
        out: &Path,
        records: &BTreeMap<String, Record>,
        resumed: usize,
        bytes_read: u64,
        took: Duration,
    ) -> Report {
        let sum = |i: usize| records.values().map(|r| r.unfinite[i]).sum::<u64>();
        let mut warnings = plan.warnings.clone();
        let sources = unfinite_sources(plan, records);
        warnings.extend(sources.iter().map(|(model, nan, inf, tensor)| {
            format!("{model} holds {nan} NaN and {inf} infinite values (the first in {tensor}): they were merged as numbers")
        }));
        if sources.is_empty() && sum(0) + sum(1) > 0 {
            warnings.push(format!(
                "the merge holds {} NaN and {} infinite values, though its inputs do not: does the dtype hold its range?",
                sum(0),
                sum(1)
            ));
        }
        warnings.extend(noise(plan, records));
        let mut report = sizes(plan, layout, out, took);
        let found = json!({
            "bytes_read": bytes_read,
            "delta_norm": finite(norm(records, 0)),
            "delta_norm_rounded": finite(norm(records, 1)),
            "nan": sum(0),
            "inf": sum(1),
            "inputs_nan": sources.iter().map(|s| s.1).sum::<u64>(),
            "inputs_inf": sources.iter().map(|s| s.2).sum::<u64>(),
            "resumed_tensors": resumed,
            "notes": plan.notes,
            "warnings": warnings,
        });
        extend(&mut report, found);
        extend(&mut report, request(plan));
        Report(report)
    }

    /// Of a merge that went to another place than the disk.
    pub fn nothing_was_written(&mut self) {
        extend(&mut self.0, json!({"bytes_written": 0, "files": []}));
    }

    /// Of an output that an earlier call made: what its manifest says. Of the inputs' NaN it says nothing.
    pub fn of_made(plan: &Plan, layout: &Layout, out: &Path, took: Duration) -> Result<Report> {
        let (_, manifest) = manifest_in(out)?;
        let mut report = sizes(plan, layout, out, took);
        let mut notes = plan.notes.clone();
        notes.push(
            "it was made by an earlier call, whose report told what its inputs hold of NaN and infinite values: left as it is".into(),
        );
        let found = json!({
            "bytes_read": 0,
            "delta_norm": manifest["delta_norm"],
            "delta_norm_rounded": manifest["delta_norm_rounded"],
            "nan": manifest["nan"],
            "inf": manifest["inf"],
            "inputs_nan": 0,
            "inputs_inf": 0,
            "resumed_tensors": plan.jobs.len(),
            "notes": notes,
            "warnings": plan.warnings,
        });
        extend(&mut report, found);
        extend(&mut report, request(plan));
        Ok(Report(report))
    }
}

/// What the reports of any merge share.
fn sizes(plan: &Plan, layout: &Layout, out: &Path, took: Duration) -> Json {
    json!({
        "out": out,
        "parameter_count": plan.parameter_count(),
        "bytes_written": layout.files.iter().map(|f| f.bytes).sum::<u64>(),
        "seconds": took.as_secs_f64(),
        "peak_rss_bytes": peak_rss(),
        "files": layout.files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(),
        "ignored": plan.ignored,
    })
}

/// Says where singular values are rounding noise for the most part: methods that make them alike make it as strong as what was learnt.
fn noise(plan: &Plan, records: &BTreeMap<String, Record>) -> Vec<String> {
    let number = |json: &Json, key: &str| json[key].as_f64().unwrap_or(0.0);
    let spectra = |job: &Job| records[&job.name].spectra.as_array().cloned().unwrap_or_default();
    let modifiers = plan.recipe.modifiers.iter().map(|modifier| (modifier.spec.name, Some(modifier)));
    let of_one = |(who, modifier): (&str, Option<&Modifier>)| {
        let seen = plan.jobs.iter().flat_map(|job| spectra(job).into_iter().filter(|s| s["of"] == who).map(move |s| (job, s)));
        let seen: Vec<(&Job, Json)> = seen.collect();
        let loud = seen.iter().filter(|(_, s)| number(s, "noise_share") > 0.5).count();
        let (job, worst) = seen.iter().max_by(|a, b| number(&a.1, "noise_share").total_cmp(&number(&b.1, "noise_share")))?;
        let params = modifier.map(|modifier| &modifier.params).or_else(|| job.bound.as_ref().map(|bound| &bound.params));
        let left_out = params.is_some_and(|params| params.number_or_word("rank_tol").is_err());
        let way_out = match (left_out, modifier) {
            (true, _) => String::new(),
            (false, None) => "; rank_tol: storage (--set rank_tol=storage) leaves it out".into(),
            (false, Some(_)) => format!("; {who}'s rank_tol: storage (--modifier {who}:rank_tol=storage) leaves it out"),
        };
        (loud > 0).then(|| {
            format!(
                "{loud} of {} matrices are rounding noise for the most part: in {} {:.0} % of the sum of the singular values lie below what \
                 rounding the models to their types makes (stable rank {:.1}){way_out}",
                seen.len(),
                job.name,
                100.0 * number(worst, "noise_share"),
                number(worst, "stable_rank")
            )
        })
    };
    [(plan.recipe.spec.name, None)].into_iter().chain(modifiers).filter_map(of_one).collect()
}

/// The models that hold NaN or infinite values: name, counts, and the first tensor by name.
fn unfinite_sources(plan: &Plan, records: &BTreeMap<String, Record>) -> Vec<(String, u64, u64, String)> {
    let mut found: Vec<(String, u64, u64, String)> = Vec::new();
    let mut jobs: Vec<&Job> = plan.jobs.iter().collect();
    jobs.sort_by_key(|job| &job.name);
    for job in jobs {
        // In the order of `Job::sources`.
        let counts = job.origins.iter().map(|origin| &origin.model).zip(&records[&job.name].sources).enumerate();
        // The model that is extrapolated is an input and what the result is added to: it counts once.
        let once = |(i, (model, count)): &(usize, (&String, &[u64; 2]))| {
            count[0] + count[1] > 0 && !job.origins[..*i].iter().any(|origin| origin.model == **model)
        };
        for (_, (model, count)) in counts.filter(once) {
            match found.iter_mut().find(|(name, ..)| name == model) {
                Some((_, nan, infinite, _)) => (*nan, *infinite) = (*nan + count[0], *infinite + count[1]),
                None => found.push((model.clone(), count[0], count[1], job.name.clone())),
            }
        }
    }
    found
}

/// The most memory that this process has held so far, in bytes.
fn peak_rss() -> u64 {
    // On Linux rusage begins with what the forking parent held (746 MB were seen for a 22 MB merge); the kernel's own mark does not.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mark = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    if let Some(kilobytes) = mark {
        return kilobytes * 1024;
    }
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: `usage` has room for the answer.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) } != 0 {
        return 0;
    }
    // SAFETY: getrusage succeeded and filled it.
    let kilobytes = unsafe { usage.assume_init() }.ru_maxrss as u64;
    kilobytes * if cfg!(target_os = "macos") { 1 } else { 1024 }
}
