//! Where in a torch file are its members? A zip archive's directory, read with suspicion.
//!
//! `torch.save` stores its members uncompressed, so a tensor's bytes are a range of the file. The directory is at the end; a member's own
//! header, in front of its bytes, is read only to learn where the bytes begin: torch pads it so that they are aligned.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::AGAIN;
use crate::error::{Error, Result};

/// Bytes of a directory: a hundred or so a tensor, so that no real one comes near.
const LONGEST: u64 = 64 << 20;
const END: usize = 22;
const LOCATOR: usize = 20;
const LOCAL: usize = 30;

/// An open torch file, and how to speak of it.
pub struct Source<'a> {
    pub path: &'a Path,
    pub file: &'a File,
    pub length: u64,
}

impl Source<'_> {
    pub fn bad(&self, what: impl std::fmt::Display) -> Error {
        Error::model(format!("{}: {what}", self.path.display()))
    }

    /// `count` bytes from `offset` on, which the caller has bounded.
    pub fn read(&self, offset: u64, count: u64) -> Result<Vec<u8>> {
        if offset.checked_add(count).is_none_or(|end| end > self.length) {
            return Err(self.damaged("points beyond its end"));
        }
        let mut bytes = vec![0; count as usize];
        self.file.read_exact_at(&mut bytes, offset).map_err(|e| Error::opening(self.path, &e))?;
        Ok(bytes)
    }

    fn damaged(&self, what: &str) -> Error {
        self.bad(format!("is damaged: its zip directory {what}; download it again"))
    }
}

/// A member as the directory has it.
struct Member {
    header: u64,
    bytes: u64,
    stored: bool,
}

pub struct Archive {
    members: BTreeMap<String, Member>,
    /// Where the directory begins and every member has ended.
    start: u64,
    /// The directory as it is: it holds the checksum of every member, so it tells files apart.
    pub raw: Vec<u8>,
}

pub fn open(source: &Source) -> Result<Archive> {
    let (start, bytes) = directory(source)?;
    if bytes > LONGEST {
        return Err(source.damaged("is larger than that of any model"));
    }
    let raw = source.read(start, bytes)?;
    let mut members = BTreeMap::new();
    let mut rest = &raw[..];
    while !rest.is_empty() {
        let (name, member, after) = member(rest).ok_or_else(|| source.damaged("cannot be read"))?;
        if members.insert(name.to_string(), member).is_some() {
            return Err(source.damaged(&format!("names {name} twice")));
        }
        rest = after;
    }
    Ok(Archive { members, start, raw })
}

impl Archive {
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// Where a member's bytes begin, and how many there are.
    pub fn place(&self, source: &Source, name: &str) -> Result<(u64, u64)> {
        let member = self.members.get(name).ok_or_else(|| source.bad(format!("is damaged: it has no {name}; download it again")))?;
        if !member.stored {
            return Err(source.bad(format!("holds {name} compressed or encrypted, which torch.save does not do: {AGAIN}")));
        }
        let header = source.read(member.header, LOCAL as u64)?;
        if &header[..4] != b"PK\x03\x04" {
            return Err(source.damaged(&format!("points astray for {name}")));
        }
        let skip = LOCAL as u64 + u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
        let begin = member.header + skip; // the header was read: this is no more than the file's length and a little
        if begin.checked_add(member.bytes).is_none_or(|end| end > self.start) {
            return Err(source.damaged(&format!("puts {name} beyond the members' end")));
        }
        Ok((begin, member.bytes))
    }
}

/// Where the directory begins and how long it is: from the record at the file's end, or the 64-bit one before that.
fn directory(source: &Source) -> Result<(u64, u64)> {
    let tail_bytes = source.length.min((END + LOCATOR + usize::from(u16::MAX)) as u64);
    let tail_start = source.length - tail_bytes;
    let tail = source.read(tail_start, tail_bytes)?;
    let end = (0..=tail.len().saturating_sub(END))
        .rev()
        .find(|at| tail[*at..].starts_with(b"PK\x05\x06") && tail.len() == at + END + usize::from(u16_at(&tail, at + 20)))
        .ok_or_else(|| source.bad("is truncated: it has no zip directory at its end; download it again"))?;
    let limit = tail_start + end as u64;
    let mut found = (u64::from(u32_at(&tail, end + 16)), u64::from(u32_at(&tail, end + 12)));
    if end >= LOCATOR && tail[end - LOCATOR..].starts_with(b"PK\x06\x07") {
        let record = source.read(u64_at(&tail, end - LOCATOR + 8), 56)?;
        if !record.starts_with(b"PK\x06\x06") {
            return Err(source.damaged("has no 64-bit record where it says so"));
        }
        found = (u64_at(&record, 48), u64_at(&record, 40));
    }
    match found.0.checked_add(found.1) {
        Some(end) if end <= limit => Ok(found),
        _ => Err(source.damaged("lies beyond its own end")),
    }
}

/// One entry of the directory and what follows it.
fn member(bytes: &[u8]) -> Option<(&str, Member, &[u8])> {
    const FIXED: usize = 46;
    if bytes.len() < FIXED || !bytes.starts_with(b"PK\x01\x02") {
        return None;
    }
    let [name, extra, comment] = [28, 30, 32].map(|at| usize::from(u16_at(bytes, at)));
    let rest = bytes.get(FIXED + name + extra + comment..)?;
    let text = std::str::from_utf8(&bytes[FIXED..FIXED + name]).ok()?;
    // uncompressed, compressed, header: each is in the 64-bit field, in this order, if it does not fit here.
    let mut sizes = [24, 20, 42].map(|at| u64::from(u32_at(bytes, at)));
    if sizes.contains(&u64::from(u32::MAX)) {
        let mut wide = wide_field(&bytes[FIXED + name..FIXED + name + extra])?;
        for size in sizes.iter_mut().filter(|size| **size == u64::from(u32::MAX)) {
            *size = u64_at(wide.get(..8)?, 0);
            wide = &wide[8..];
        }
    }
    let encrypted = u16_at(bytes, 8) & 1 != 0;
    let stored = u16_at(bytes, 10) == 0 && sizes[0] == sizes[1] && !encrypted;
    Some((text, Member { header: sizes[2], bytes: sizes[0], stored }, rest))
}

/// The extra field that holds 64-bit sizes.
fn wide_field(mut extra: &[u8]) -> Option<&[u8]> {
    loop {
        let count = usize::from(u16_at(extra.get(..4)?, 2));
        let body = extra.get(4..4 + count)?;
        if u16_at(extra, 0) == 1 {
            return Some(body);
        }
        extra = &extra[4 + count..];
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
