//! Whose tokens does the output speak? The keys `tokenizer_source`, `tokenizer` and `chat_template`.
//!
//! They are checked here, as all of the recipe is, and acted on where tokenizers are read: the engine gets maps of rows
//! (`checkpoint/vocabulary.rs`) and never sees a token.

use serde_json::{Map, Value as Json};

use super::slices::known;
use super::text_of;
use crate::error::{did_you_mean, Error, Result};

pub const KEYS: [&str; 3] = ["tokenizer_source", "tokenizer", "chat_template"];

const TOKENIZER: [&str; 3] = ["source", "tokens", "pad_to_multiple_of"];
const TOKEN: [&str; 2] = ["source", "force"];
const KINDS: [&str; 2] = ["model_token", "zero"];

/// What the recipe says of tokens, as it says it.
pub fn read(keys: &Map<String, Json>) -> Result<Map<String, Json>> {
    let source = text_of(keys, "tokenizer_source")?;
    text_of(keys, "chat_template")?;
    match keys.get("tokenizer") {
        Some(_) if source.is_some() => return Err(Error::recipe("the recipe has tokenizer_source and tokenizer: give one of them")),
        Some(Json::Object(tokenizer)) => check_tokenizer(tokenizer)?,
        Some(other) => return Err(Error::recipe(format!("tokenizer must be a mapping like {{source: union}}, not {other}"))),
        None => {}
    }
    Ok(keys.iter().filter(|(key, _)| KEYS.contains(&key.as_str())).map(|(key, value)| (key.clone(), value.clone())).collect())
}

fn check_tokenizer(tokenizer: &Map<String, Json>) -> Result<()> {
    known(tokenizer, "tokenizer", &TOKENIZER)?;
    text_of(tokenizer, "source").map_err(|_| Error::recipe("tokenizer: source must be union, base, or a model"))?;
    match tokenizer.get("pad_to_multiple_of") {
        None | Some(Json::Null) => {}
        Some(number) if number.as_u64().is_some_and(|n| (1..=1 << 20).contains(&n)) => {}
        Some(other) => {
            return Err(Error::recipe(format!("tokenizer: pad_to_multiple_of is {other}: it must be a whole number from 1 to 2^20")))
        }
    }
    match tokenizer.get("tokens") {
        None | Some(Json::Null) => Ok(()),
        Some(Json::Object(tokens)) => tokens.iter().try_for_each(|(token, settings)| check_token(token, settings)),
        Some(other) => Err(Error::recipe(format!("tokenizer: tokens must be a mapping of tokens, not {other}"))),
    }
}

fn check_token(token: &str, settings: &Json) -> Result<()> {
    let bad = |what: String| Err(Error::recipe(format!("tokenizer: the token \"{token}\" {what}")));
    let Json::Object(settings) = settings else {
        return bad(format!("needs a mapping like {{source: MODEL, force: true}}, not {settings}"));
    };
    known(settings, &format!("the token \"{token}\""), &TOKEN)?;
    let force = match settings.get("force") {
        None | Some(Json::Null) => false,
        Some(Json::Bool(force)) => *force,
        Some(other) => return bad(format!("has force: {other}, which must be true or false")),
    };
    let source = match settings.get("source") {
        None | Some(Json::Null) if force => return bad("is forced, and has no source: a model, or {kind: zero}".into()),
        None | Some(Json::Null) => return Ok(()),
        Some(Json::String(model)) if !model.is_empty() => return Ok(()),
        Some(Json::Object(source)) => source,
        Some(other) => return bad(format!("has the source {other}, which is no model")),
    };
    match source.get("kind").and_then(Json::as_str) {
        Some("zero") => known(source, "a source of kind zero", &["kind"]),
        Some("model_token") => {
            known(source, "a source of kind model_token", &["kind", "model", "token", "token_id"])?;
            let (text, number) = (source.get("token").and_then(Json::as_str), source.get("token_id").and_then(Json::as_u64));
            match (source.get("model").and_then(Json::as_str), text.is_some() != number.is_some()) {
                (Some(_), true) => Ok(()),
                _ => bad("takes a model_token, which needs model, and token or token_id".into()),
            }
        }
        kind => {
            let near = did_you_mean(kind.unwrap_or_default(), KINDS);
            bad(format!("has a source of unknown kind {}{near} (known: {})", kind.unwrap_or("none"), KINDS.join(", ")))
        }
    }
}
