//! `millrace config explain [KEY]`: what a setting is and who said so.
//!
//! KEY is a setting's full key, levels of one (`exporters`, `queue`), its last word (`max_bytes`), or an environment
//! variable.

use std::io::Write;

use crate::config::{Explained, SETTINGS};

use super::source::{Source, Unusable};

/// Prints the settings that a key means.
pub(super) fn explain(key: Option<&str>, source: &Source) -> anyhow::Result<()> {
    let loaded = source.load()?;
    let found: Vec<&Explained> =
        loaded.settings.iter().filter(|setting| key.is_none_or(|key| means(key, setting))).collect();
    if found.is_empty() {
        let key = key.unwrap_or_default();
        let near = loaded.settings.iter().map(|setting| setting.key.as_str());
        let last_word = |known: &str| known.rsplit('.').next().map_or(0, |word| strsim::damerau_levenshtein(word, key));
        let distance = |known: &&str| strsim::damerau_levenshtein(known, key).min(last_word(known));
        let near = near.min_by_key(distance).unwrap_or_default();
        return Err(Unusable(format!("no setting {key:?}; the nearest is {near:?}")).into());
    }
    let wide = |of: fn(&Explained) -> usize| found.iter().map(|setting| of(setting)).max().unwrap_or(0);
    let (keys, values) = (wide(|setting| setting.key.len()), wide(|setting| setting.value.len()));
    let mut out = std::io::stdout().lock();
    for Explained { key, value, source } in found {
        writeln!(out, "{key:keys$}  {value:values$}  {source}")?;
    }
    Ok(())
}

fn means(key: &str, setting: &Explained) -> bool {
    let under =
        |path: &str| setting.key == path || setting.key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
    let by_variable = SETTINGS.iter().filter(|known| known.variable == Some(key));
    under(key)
        || setting.key.strip_suffix(key).is_some_and(|rest| rest.ends_with('.'))
        || by_variable.map(|known| known.path.join(".")).any(|path| under(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_whole_a_part_a_last_word_or_a_variable() {
        let setting = |key: &str| Explained { key: key.to_owned(), value: String::new(), source: String::new() };
        let (max, port) = (setting("queue.max_bytes"), setting("receivers.uberagent.protocols.tcp.port"));
        for key in ["queue.max_bytes", "queue", "max_bytes"] {
            assert!(means(key, &max) && !means(key, &port), "{key}");
        }
        assert!(means("LISTEN_PORT", &port) && !means("LISTEN_PORT", &max));
        assert!(!means("bytes", &max) && !means("que", &max));
    }
}
