//! What may a pickle ask for by name? What a dict of tensors is made of, and nothing else.
//!
//! Names are matched, never imported: each stands for a few lines of this reader.

/// A name of the allow-list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Global {
    OrderedDict,
    /// `_rebuild_tensor_v2`: the storage says the type.
    Tensor,
    /// `_rebuild_tensor_v3`: an argument says the type.
    TypedTensor,
    /// `_rebuild_parameter` and its kin: a tensor with flags of training.
    Parameter,
    /// A storage's class, by the code of its elements as a safetensors header spells it; none for plain bytes.
    Storage(Option<&'static str>),
    Dtype(&'static str),
    Size,
    Device,
    Set,
}

/// torch's class of a storage, torch's name of the type, and the type's code.
const TYPES: [(&str, &str, &str); 24] = [
    ("DoubleStorage", "float64", "F64"),
    ("FloatStorage", "float32", "F32"),
    ("HalfStorage", "float16", "F16"),
    ("BFloat16Storage", "bfloat16", "BF16"),
    ("LongStorage", "int64", "I64"),
    ("IntStorage", "int32", "I32"),
    ("ShortStorage", "int16", "I16"),
    ("CharStorage", "int8", "I8"),
    ("ByteStorage", "uint8", "U8"),
    ("BoolStorage", "bool", "BOOL"),
    ("", "uint16", "U16"),
    ("", "uint32", "U32"),
    ("", "uint64", "U64"),
    // What follows is known so that the tensor can be refused by its name.
    ("", "float8_e4m3fn", "F8_E4M3"),
    ("", "float8_e5m2", "F8_E5M2"),
    ("", "float8_e4m3fnuz", "F8_E4M3FNUZ"),
    ("", "float8_e5m2fnuz", "F8_E5M2FNUZ"),
    ("", "float8_e8m0fnu", "F8_E8M0"),
    ("", "complex32", "C32"),
    ("ComplexFloatStorage", "complex64", "C64"),
    ("ComplexDoubleStorage", "complex128", "C128"),
    ("QInt8Storage", "qint8", "QI8"),
    ("QUInt8Storage", "quint8", "QU8"),
    ("QInt32Storage", "qint32", "QI32"),
];

pub fn find(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2") => Global::Tensor,
        ("torch._utils", "_rebuild_tensor_v3") => Global::TypedTensor,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::Parameter,
        ("torch.storage", "UntypedStorage") => Global::Storage(None),
        ("torch", "Size") => Global::Size,
        ("torch", "device") => Global::Device,
        ("__builtin__" | "builtins", "set") => Global::Set,
        ("torch", _) if !name.is_empty() => match TYPES.iter().find(|row| name == row.0 || name == row.1)? {
            row if name == row.1 => Global::Dtype(row.2),
            row => Global::Storage(Some(row.2)),
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;

    #[test]
    fn types_are_named_as_torch_names_them() {
        for (_, name, code) in TYPES {
            match Dtype::from_code(code) {
                Some(dtype) => assert_eq!(dtype.name(), name),
                None => assert!(code.starts_with(['F', 'C', 'Q']), "{code}"),
            }
        }
        assert_eq!(find("torch", "FloatStorage"), Some(Global::Storage(Some("F32"))));
        assert_eq!(find("torch", "float32"), Some(Global::Dtype("F32")));
    }

    #[test]
    fn nothing_else_is_known() {
        for (module, name) in [("os", "system"), ("torch", ""), ("torch", "load"), ("builtins", "eval"), ("", "OrderedDict")] {
            assert_eq!(find(module, name), None, "{module}.{name}");
        }
    }
}
