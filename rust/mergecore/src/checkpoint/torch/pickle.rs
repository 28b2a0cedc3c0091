//! What does a pickle say? Read by a machine that knows the dozen or two of operations that a dict of tensors is written with.
//!
//! A pickle is a program for a stack. This machine can build tuples, lists, dicts and descriptions of tensors, and nothing else: a name
//! outside the allow-list ends it, nothing is imported and nothing is called. Compound values lie flat in a heap and refer to one
//! another by number, so nothing here recurses, whatever the pickle nests or ties into rings; steps are counted, so memory is bounded.

use std::collections::HashMap;

use super::globals::{find, Global};

/// About 45 steps a tensor: enough for 40,000 tensors in one file. A step takes 100 bytes at the most.
const STEPS: usize = 2_000_000;
/// Of a tensor; a weight has five at the most.
const DIMENSIONS: usize = 16;

#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    Int(i64),
    Text(&'a str),
    /// A tuple or list, by its number.
    Row(usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
    /// A number, a flag, a set: something that is no weight.
    Other,
}

/// The bytes that tensors are views of.
#[derive(Debug)]
pub struct Storage<'a> {
    /// The element type's code; none for plain bytes.
    pub code: Option<&'static str>,
    pub key: &'a str,
}

/// A view of a storage, not yet checked against it.
#[derive(Debug)]
pub struct View {
    pub storage: usize,
    pub code: Option<&'static str>,
    /// In elements, as are the strides.
    pub offset: u64,
    pub shape: Vec<u64>,
    pub strides: Vec<u64>,
}

#[derive(Default)]
pub struct Heap<'a> {
    pub rows: Vec<Vec<Value<'a>>>,
    pub dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    pub storages: Vec<Storage<'a>>,
    pub tensors: Vec<View>,
}

impl Heap<'_> {
    /// Which rows and which dicts hold a tensor, however deep: upwards from those that do so themselves, each looked at once.
    pub fn bearing(&self) -> (Vec<bool>, Vec<bool>) {
        let rows = self.rows.len();
        let mut bears = vec![false; rows + self.dicts.len()];
        let mut parents: Vec<(usize, usize)> = Vec::new();
        let mut open = Vec::new();
        let mut look = |parent: usize, value: &Value| match value {
            Value::Row(child) => parents.push((*child, parent)),
            Value::Dict(child) => parents.push((rows + child, parent)),
            Value::Tensor(_) | Value::Storage(_) => open.push(parent),
            _ => {}
        };
        self.rows.iter().enumerate().for_each(|(row, items)| items.iter().for_each(|value| look(row, value)));
        for (dict, items) in self.dicts.iter().enumerate() {
            items.iter().for_each(|(_, value)| look(rows + dict, value));
        }
        parents.sort_unstable();
        while let Some(node) = open.pop() {
            if !std::mem::replace(&mut bears[node], true) {
                let first = parents.partition_point(|(child, _)| *child < node);
                open.extend(parents[first..].iter().take_while(|(child, _)| *child == node).map(|(_, parent)| parent));
            }
        }
        let dicts = bears.split_off(rows);
        (bears, dicts)
    }
}

type Outcome<T> = std::result::Result<T, String>;

struct Machine<'a> {
    code: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// How high the stack was at each mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    heap: Heap<'a>,
}

/// Runs a pickle; what it leaves, and the heap that it refers to. An error is the end of a sentence that begins with the file.
pub fn run(code: &[u8]) -> Outcome<(Value<'_>, Heap<'_>)> {
    let (stack, marks, memo) = Default::default();
    let mut machine = Machine { code, at: 0, stack, marks, memo, heap: Heap::default() };
    for _ in 0..STEPS {
        let at = machine.at;
        // What is refused for what it is says so in words; all else is damage, and says where.
        let done = machine.step().map_err(|e| match e.strip_prefix('!') {
            Some(refusal) => refusal.to_string(),
            None => format!("is damaged: its pickle {e} at byte {at}; download it again"),
        })?;
        if done {
            let value = machine.pop().map_err(|e| format!("is damaged: its pickle {e}; download it again"))?;
            return Ok((value, machine.heap));
        }
    }
    Err(format!("has a pickle of more than {STEPS} steps, which no model needs; save it again in smaller shards"))
}

impl<'a> Machine<'a> {
    /// One operation; whether it was the last.
    fn step(&mut self) -> Outcome<bool> {
        match self.take(1)?[0] {
            b'.' => return Ok(true),
            0x80 => match self.take(1)?[0] {
                2 => {}
                other => return Err(format!("!is pickled in protocol {other}, and torch.save's is 2: {}", super::AGAIN)),
            },
            b'(' => self.marks.push(self.stack.len()),
            b'N' | 0x88 | 0x89 => self.stack.push(Value::Other),
            b'G' => {
                self.take(8)?;
                self.stack.push(Value::Other);
            }
            b'K' => self.int(1, false)?,
            b'M' => self.int(2, false)?,
            b'J' => self.int(4, true)?,
            0x8a => {
                let count = usize::from(self.take(1)?[0]);
                self.int(count, true)?;
            }
            b'X' => {
                let count = self.u32()? as usize;
                let text = std::str::from_utf8(self.take(count)?).map_err(|_| "holds a text that is not UTF-8".to_string())?;
                self.stack.push(Value::Text(text));
            }
            b')' | b']' => self.row(Vec::new()),
            b't' => {
                let items = self.since_mark()?;
                self.row(items);
            }
            count @ 0x85..=0x87 => {
                let mut items = vec![Value::Other; usize::from(count - 0x84)];
                for item in items.iter_mut().rev() {
                    *item = self.pop()?;
                }
                self.row(items);
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(items)?;
            }
            b'}' => self.dict(),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set(&items)?;
            }
            b'q' => {
                let slot = u32::from(self.take(1)?[0]);
                self.remember(slot)?;
            }
            b'r' => {
                let slot = self.u32()?;
                self.remember(slot)?;
            }
            b'h' => {
                let slot = u32::from(self.take(1)?[0]);
                self.recall(slot)?;
            }
            b'j' => {
                let slot = self.u32()?;
                self.recall(slot)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let global = find(module, name).ok_or_else(|| refused(module, name))?;
                self.stack.push(Value::Global(global));
            }
            b'Q' => self.storage()?,
            b'R' => self.reduce()?,
            // State of an OrderedDict: torch keeps the modules' versions there.
            b'b' => {
                self.pop()?;
                match self.pop()? {
                    dict @ Value::Dict(_) => self.stack.push(dict),
                    _ => return Err("sets the state of something that has none".into()),
                }
            }
            // Other ways to ask for a name: read so far that the error can say which.
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                return Err(refused(module, name));
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => return Err(refused(module, name)),
                _ => return Err("asks for a name that is no text".into()),
            },
            other => return Err(format!("!has the operation 0x{other:02x} in its pickle, which no tensor needs: {}", super::AGAIN)),
        }
        Ok(false)
    }

    fn take(&mut self, count: usize) -> Outcome<&'a [u8]> {
        let bytes = self.code[self.at..].get(..count).ok_or("ends too early")?;
        self.at += count;
        Ok(bytes)
    }

    fn u32(&mut self) -> Outcome<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    /// A little-endian integer; one that no size comes near is no integer to us.
    fn int(&mut self, count: usize, signed: bool) -> Outcome<()> {
        let bytes = self.take(count)?;
        let negative = signed && bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        self.stack.push(if count <= 8 {
            wide[..count].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(wide))
        } else {
            Value::Other
        });
        Ok(())
    }

    fn line(&mut self) -> Outcome<&'a str> {
        let count = self.code[self.at..].iter().position(|byte| *byte == b'\n').ok_or("ends too early")?;
        let line = self.take(count + 1)?;
        std::str::from_utf8(&line[..count]).map_err(|_| "holds a name that is not UTF-8".into())
    }

    /// What lies on top; nothing may reach below a mark.
    fn pop(&mut self) -> Outcome<Value<'a>> {
        if self.marks.last().is_some_and(|mark| *mark == self.stack.len()) {
            return Err("takes a mark for a value".into());
        }
        self.stack.pop().ok_or_else(|| "takes from an empty stack".into())
    }

    fn since_mark(&mut self) -> Outcome<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or("has no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn row(&mut self, items: Vec<Value<'a>>) {
        self.stack.push(Value::Row(self.heap.rows.len()));
        self.heap.rows.push(items);
    }

    fn dict(&mut self) {
        self.stack.push(Value::Dict(self.heap.dicts.len()));
        self.heap.dicts.push(Vec::new());
    }

    fn append(&mut self, items: Vec<Value<'a>>) -> Outcome<()> {
        let Some(Value::Row(list)) = self.stack.last() else { return Err("appends to no list".into()) };
        self.heap.rows[*list].extend(items);
        Ok(())
    }

    fn set(&mut self, items: &[Value<'a>]) -> Outcome<()> {
        let Some(Value::Dict(dict)) = self.stack.last() else { return Err("sets items of no dict".into()) };
        if !items.len().is_multiple_of(2) {
            return Err("sets a key without a value".into());
        }
        self.heap.dicts[*dict].extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        Ok(())
    }

    fn remember(&mut self, slot: u32) -> Outcome<()> {
        let value = self.pop()?;
        self.stack.push(value);
        self.memo.insert(slot, value);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Outcome<()> {
        self.stack.push(*self.memo.get(&slot).ok_or_else(|| format!("recalls {slot}, which it never stored,"))?);
        Ok(())
    }

    /// ("storage", class, key, device, elements)
    fn storage(&mut self) -> Outcome<()> {
        let value = self.pop()?;
        match self.items(value).as_slice() {
            [Value::Text("storage"), Value::Global(Global::Storage(code)), Value::Text(key), Value::Text(_), Value::Int(_)] => {
                self.stack.push(Value::Storage(self.heap.storages.len()));
                self.heap.storages.push(Storage { code: *code, key });
                Ok(())
            }
            _ => Err("refers to something that is no storage".into()),
        }
    }

    /// The first items of a tuple, more than any use of them; none of what is no tuple.
    fn items(&self, value: Value<'a>) -> Vec<Value<'a>> {
        match value {
            Value::Row(row) => self.heap.rows[row].iter().take(DIMENSIONS + 1).copied().collect(),
            _ => Vec::new(),
        }
    }

    fn reduce(&mut self) -> Outcome<()> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let Value::Global(global) = callee else { return Err("calls something that is no name".into()) };
        let items = self.items(arguments);
        let value = match (global, items.as_slice()) {
            (Global::OrderedDict, []) => {
                self.dict();
                return Ok(());
            }
            (Global::Tensor, [storage, offset, shape, strides, _, _, more @ ..]) => {
                self.view(*storage, *offset, *shape, *strides, None, more)?
            }
            (Global::TypedTensor, [storage, offset, shape, strides, _, _, Value::Global(Global::Dtype(code)), more @ ..]) => {
                self.view(*storage, *offset, *shape, *strides, Some(code), more)?
            }
            (Global::Parameter, [tensor @ Value::Tensor(_), ..]) => *tensor,
            (Global::Size, [shape @ Value::Row(_)]) => *shape,
            (Global::Device | Global::Set, [_, ..]) => Value::Other,
            _ => return Err(format!("calls {global:?} with arguments that do not fit")),
        };
        self.stack.push(value);
        Ok(())
    }

    fn view(
        &mut self,
        storage: Value,
        offset: Value,
        shape: Value<'a>,
        strides: Value<'a>,
        code: Option<&'static str>,
        more: &[Value],
    ) -> Outcome<Value<'a>> {
        let (Value::Storage(storage), Value::Int(offset)) = (storage, offset) else { return Err("builds a tensor of no storage".into()) };
        // Conjugated and negated views say so here.
        if more.iter().any(|value| matches!(value, Value::Dict(dict) if !self.heap.dicts[*dict].is_empty())) {
            return Err(format!("!holds a conjugated or negated view: {}", super::AGAIN));
        }
        let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
        if shape.len() != strides.len() {
            return Err(format!("builds a tensor of shape {shape:?} with strides {strides:?}"));
        }
        let offset = u64::try_from(offset).map_err(|_| "builds a tensor before its storage")?;
        self.heap.tensors.push(View { storage, code, offset, shape, strides });
        Ok(Value::Tensor(self.heap.tensors.len() - 1))
    }

    fn sizes(&self, value: Value<'a>) -> Outcome<Vec<u64>> {
        let size = |item: &Value| match item {
            Value::Int(size) => u64::try_from(*size).ok(),
            _ => None,
        };
        let items = self.items(value);
        if !matches!(value, Value::Row(_)) || items.len() > DIMENSIONS {
            return Err("builds a tensor of no valid shape".into());
        }
        items.iter().map(size).collect::<Option<_>>().ok_or_else(|| "builds a tensor of no valid shape".into())
    }
}

fn refused(module: &str, name: &str) -> String {
    let mut target = format!("{module}.{name}");
    if target.len() > 100 {
        let end = (0..=100).rev().find(|at| target.is_char_boundary(*at)).unwrap_or(0);
        target.truncate(end);
        target.push('…');
    }
    let target: String = target.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("!asks for {target}, which is no part of a tensor (nothing was run): {}", super::AGAIN)
}
