//! What can go wrong, and to which thing?
//!
//! Every message is one line: it names the file, tensor, model or key, and the way out. The kind decides the exit status and the Python
//! class; it never changes the words.

use std::path::Path;

/// Which of the user's expectations was not met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong: a recipe key, a method, a parameter.
    Recipe,
    /// A model is malformed, or does not fit the others.
    Model,
    /// A file or folder is not there.
    NotFound,
    /// The output is there already, or is somebody else's.
    Exists,
    /// The disk or the memory given is too small; found before the first byte.
    Space,
    /// It failed while running: an input changed, a write failed.
    Run,
    /// Ctrl-C.
    Interrupted,
}

/// One line that names the thing and the way out.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: Kind,
    pub message: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        // A file name may hold a line break; a message may not.
        let message = message.into().replace(['\n', '\r'], " ");
        Error { kind, message }
    }

    pub fn recipe(message: impl Into<String>) -> Self {
        Self::new(Kind::Recipe, message)
    }

    pub fn model(message: impl Into<String>) -> Self {
        Self::new(Kind::Model, message)
    }

    pub fn run(message: impl Into<String>) -> Self {
        Self::new(Kind::Run, message)
    }

    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted")
    }

    /// The same error, of one thing among several: the title is told before it, if there is one. Ctrl-C is of none.
    pub fn of(self, title: &str) -> Self {
        match (title, self.kind) {
            ("", _) | (_, Kind::Interrupted) => self,
            _ => Self::new(self.kind, format!("{title}: {}", self.message)),
        }
    }

    /// An operating-system error on an input, before anything is written.
    pub fn opening(path: &Path, error: &std::io::Error) -> Self {
        let (kind, way_out) = match error.kind() {
            std::io::ErrorKind::NotFound => (Kind::NotFound, ""),
            std::io::ErrorKind::PermissionDenied => (Kind::Model, "; change its permissions (chmod +r)"),
            _ => (Kind::Model, ""),
        };
        Self::new(kind, format!("{}: {}{way_out}", path.display(), reason(error)))
    }

    /// An operating-system error while reading or writing.
    pub fn io(path: &Path, doing: &str, error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            return Self::run(format!(
                "{}: the file became shorter while it was being read; restore it and run the same command again",
                path.display()
            ));
        }
        if error.raw_os_error() == Some(libc::ENOSPC) || error.raw_os_error() == Some(libc::EDQUOT) {
            return Self::run(format!(
                "{}: no space left on the disk while {doing}; free some and run the same command again, it goes on where it was",
                path.display()
            ));
        }
        let way_out = match error.raw_os_error() {
            Some(libc::EFBIG) => {
                "; `ulimit -f` or the file system allows no larger file: raise it, or choose another --out or a smaller --shard-size"
            }
            Some(libc::EIO) => "; look after the disk, then run the same command again, it goes on where it was",
            _ => "",
        };
        Self::run(format!("{}: {} while {doing}{way_out}", path.display(), reason(error)))
    }
}

/// The operating system's words without Rust's "(os error 2)".
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

/// `; did you mean "x"?` for the known name nearest to `given`, or nothing if none is near.
pub fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let normal = |s: &str| s.to_lowercase().replace('-', "_");
    let given = normal(given);
    known
        .into_iter()
        .map(|name| (distance(&given, &normal(name)), name))
        .filter(|(d, name)| *d <= 1.max(given.len().max(name.len()) * 2 / 5))
        .min()
        .map_or(String::new(), |(_, name)| format!("; did you mean \"{name}\"?"))
}

/// Edits between two words: insert, delete, replace or swap two neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        let known = ["ties", "dare_ties", "linear"];
        assert_eq!(did_you_mean("tise", known), "; did you mean \"ties\"?");
        assert_eq!(did_you_mean("DARE-tie", known), "; did you mean \"dare_ties\"?");
        assert_eq!(did_you_mean("wholly different", known), "");
    }

    #[test]
    fn a_message_is_one_line() {
        assert!(!Error::model("a\nb").to_string().contains('\n'));
    }
}
