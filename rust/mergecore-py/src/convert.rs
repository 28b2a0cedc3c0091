//! Python's arrays as the engine's bytes, and back. No element is looked at.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use mergecore::checkpoint::vocabulary::{Origin, Vocabulary};
use mergecore::checkpoint::{Checkpoint, Lent, Tensor};
use mergecore::dtype::Dtype;
use mergecore::write::SideFile;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

/// The memory of a one-dimensional, contiguous array of bytes, kept alive by the reference beside it.
///
/// Read through `__array_interface__`, which every NumPy has; the buffer protocol is not in Python 3.10's stable ABI.
pub struct Memory {
    address: usize,
    bytes: usize,
    writable: bool,
    _owner: Py<PyAny>,
}

impl Memory {
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    pub fn bytes(&self) -> &[u8] {
        match self.bytes {
            0 => &[],
            // SAFETY: NumPy gave the address and length of memory that its owner, held here, keeps alive; Python code that
            // writes to it meanwhile races with this reader as it would with any other.
            bytes => unsafe { std::slice::from_raw_parts(self.address as *const u8, bytes) },
        }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        assert!(self.writable, "it was looked at before");
        match self.bytes {
            0 => &mut [],
            // SAFETY: NumPy gave the address and length of writable memory that its owner, held here, keeps alive; it is
            // borrowed exclusively from `self`. Whoever lent it in Python leaves it alone until it is given back.
            bytes => unsafe { std::slice::from_raw_parts_mut(self.address as *mut u8, bytes) },
        }
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Memory {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let interface = object.getattr("__array_interface__")?.cast_into::<PyDict>()?;
        let item = |key: &str| interface.get_item(key)?.ok_or_else(|| PyTypeError::new_err(format!("__array_interface__ has no {key}")));
        let (address, read_only): (usize, bool) = item("data")?.extract()?;
        let shape: Vec<usize> = item("shape")?.extract()?;
        let kind: String = item("typestr")?.extract()?;
        let strided = interface.get_item("strides")?.is_some_and(|strides| !strides.is_none());
        if shape.len() != 1 || strided || !["|u1", "|b1"].contains(&kind.as_str()) {
            return Err(PyTypeError::new_err("expected a contiguous one-dimensional array of bytes"));
        }
        Ok(Memory { address, bytes: shape[0], writable: !read_only, _owner: object.to_owned().unbind() })
    }
}

/// A model in memory: name → (dtype, shape, bytes).
pub struct Inputs(BTreeMap<String, (Dtype, Vec<u64>, Memory)>);

impl<'a, 'py> FromPyObject<'a, 'py> for Inputs {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let given: BTreeMap<String, (String, Vec<u64>, Memory)> = object.extract()?;
        let mut tensors = BTreeMap::new();
        for (name, (dtype, shape, memory)) in given {
            let known =
                Dtype::from_name(&dtype).ok_or_else(|| PyValueError::new_err(format!("tensor {name}: dtype {dtype} cannot be merged")))?;
            let expected = shape.iter().product::<u64>() * known.size() as u64;
            if memory.bytes as u64 != expected {
                return Err(PyValueError::new_err(format!("tensor {name}: {} bytes do not make {dtype} {shape:?}", memory.bytes)));
            }
            tensors.insert(name, (known, shape, memory));
        }
        Ok(Inputs(tensors))
    }
}

impl Inputs {
    pub fn checkpoint(&self, reference: &str) -> Checkpoint<'_> {
        fn tensor<'m>((name, (dtype, shape, memory)): (&'m String, &'m (Dtype, Vec<u64>, Memory))) -> (String, Tensor<'m>) {
            let source = Arc::new(Lent(memory.bytes()));
            (name.clone(), Tensor { dtype: *dtype, shape: shape.clone(), file: 0, offset: 0, source })
        }
        Checkpoint::lent(reference, self.0.iter().map(tensor).collect())
    }
}

/// Writable arrays to be filled, by name; or a single one, which is called "".
pub struct Arrays(BTreeMap<String, Memory>);

impl<'a, 'py> FromPyObject<'a, 'py> for Arrays {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let arrays: BTreeMap<String, Memory> = match object.cast::<PyDict>() {
            Ok(dict) => dict.iter().map(|(name, array)| Ok((name.extract()?, memory_of(&array)?))).collect::<PyResult<_>>()?,
            Err(_) => BTreeMap::from([(String::new(), object.extract()?)]),
        };
        match arrays.iter().find(|(_, memory)| !memory.writable) {
            Some((name, _)) => Err(PyValueError::new_err(format!("the output array for {name} is read-only"))),
            None => Ok(Arrays(arrays)),
        }
    }
}

/// An array, or the array at the end of (dtype, shape, array).
fn memory_of(object: &Bound<PyAny>) -> PyResult<Memory> {
    match object.extract::<(String, Vec<u64>, Memory)>() {
        Ok((_, _, memory)) => Ok(memory),
        Err(_) => object.extract(),
    }
}

impl Arrays {
    /// The arrays' memory, for as long as they are borrowed.
    pub fn lend(&mut self) -> BTreeMap<String, &mut [u8]> {
        self.0.iter_mut().map(|(name, memory)| (name.clone(), memory.bytes_mut())).collect()
    }
}

/// Bytes that the engine made, as NumPy takes them: `numpy.asarray` looks at them in place and keeps this object alive.
#[pyclass(frozen)]
pub struct Bytes {
    /// Of a box that was turned into its address, so that nothing in Rust has a reference to what Python may write to.
    address: usize,
    length: usize,
}

impl Bytes {
    pub fn new(bytes: Vec<u8>) -> Bytes {
        let length = bytes.len();
        Bytes { address: Box::into_raw(bytes.into_boxed_slice()) as *mut u8 as usize, length }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        let slice = std::ptr::slice_from_raw_parts_mut(self.address as *mut u8, self.length);
        // SAFETY: address and length are those of the box that `new` has given up, which is made a box again this once.
        drop(unsafe { Box::from_raw(slice) });
    }
}

#[pymethods]
impl Bytes {
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("typestr", "|u1")?;
        interface.set_item("shape", (self.length,))?;
        interface.set_item("data", (self.address, false))?;
        Ok(interface)
    }
}

/// (name, content as bytes | path of a file to copy) pairs.
pub struct SideFiles(pub Vec<(String, SideFile)>);

impl<'a, 'py> FromPyObject<'a, 'py> for SideFiles {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let pairs: Vec<(String, Py<PyAny>)> = object.extract()?;
        let convert = |(name, content): (String, Py<PyAny>)| {
            let content = content.bind(object.py());
            let file = match content.cast::<PyBytes>() {
                Ok(bytes) => SideFile::Content(bytes.as_bytes().to_vec()),
                Err(_) => SideFile::CopyOf(content.extract::<PathBuf>()?),
            };
            Ok((name, file))
        };
        pairs.into_iter().map(convert).collect::<PyResult<_>>().map(SideFiles)
    }
}

/// A vocabulary: (rows, {model: 64-bit codes of its rows as bytes}, [[(model, row), ...], ...]).
pub struct Rows(pub Vocabulary);

impl<'a, 'py> FromPyObject<'a, 'py> for Rows {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        type Parts = (u64, BTreeMap<String, Vec<u8>>, Vec<Vec<(String, u64)>>);
        let (rows, maps, made): Parts = object.extract()?;
        let map = |(model, codes): (String, Vec<u8>)| -> PyResult<_> {
            let codes = codes.chunks_exact(8).map(|code| i64::from_ne_bytes(code.try_into().expect("eight bytes")));
            let map: Vec<Origin> = codes.map(Origin::from_code).collect();
            let odd = map.iter().any(|origin| matches!(origin, Origin::Made(number) if *number >= made.len()));
            if map.len() as u64 != rows || odd {
                return Err(PyValueError::new_err(format!("the map of {model} does not make {rows} rows")));
            }
            Ok((model, map.into()))
        };
        let maps = maps.into_iter().map(map).collect::<PyResult<_>>()?;
        Ok(Rows(Vocabulary { rows, maps, made }))
    }
}
