//! In which scripts is a text written?

use unicode_script::{Script, UnicodeScript};

/// Letters in a row of one script, and whether a letter of another script touches them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub start: usize,
    pub end: usize,
    pub script: Script,
    pub glued: bool,
}

/// The runs of letters, but for those of Latin that no other script touches. Digits and what scripts share belong to none; a combining
/// mark does not end a run.
pub fn runs(text: &[char]) -> Vec<Run> {
    let mut found = all(text);
    found.retain(|run| run.glued || run.script != Script::Latin);
    found
}

fn all(text: &[char]) -> Vec<Run> {
    let mut found: Vec<Run> = Vec::new();
    for (at, &c) in text.iter().enumerate() {
        let Some(script) = letter_script(c) else { continue };
        match found.last_mut() {
            Some(run) if run.end == at && (run.script == script || script == Script::Inherited) => run.end += 1,
            _ if script == Script::Inherited => {}
            Some(run) if run.end == at => {
                run.glued = true;
                found.push(Run { start: at, end: at + 1, script, glued: true });
            }
            _ => found.push(Run { start: at, end: at + 1, script, glued: false }),
        }
    }
    found
}

/// The script of a letter; Japanese is written in three, which are taken as one with Han where they touch.
fn letter_script(c: char) -> Option<Script> {
    if c.is_ascii() {
        return c.is_ascii_alphabetic().then_some(Script::Latin);
    }
    match c.script() {
        Script::Common | Script::Unknown => None,
        Script::Hiragana | Script::Katakana => Some(Script::Han),
        Script::Inherited => Some(Script::Inherited),
        _ if !c.is_alphabetic() && c.script() == Script::Latin => None,
        script => Some(script),
    }
}
