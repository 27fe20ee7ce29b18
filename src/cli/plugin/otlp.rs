//! OTLP for people: requests read from JSON or protobuf as files have them, and written as JSON.
//!
//! A file holds one request or many: JSON texts one after the other, in lines or not (`millrace queue export`, the Collector's
//! file exporter); a request in protobuf; or requests in protobuf, each behind its length in four bytes, big-endian. A
//! request in protobuf begins with the byte 10, a length with 0: they cannot be taken for each other.

use anyhow::{Context, bail};
use serde::de::IgnoredAny;

use crate::block::Signal;
use crate::otlp::{check, from_json, json};

/// The requests in a file, checked as a receiver would. JSON is only read of spans.
pub(super) fn requests(signal: Signal, file: &[u8]) -> anyhow::Result<Vec<Vec<u8>>> {
    let is_json = file.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let requests = match (is_json, file.first()) {
        (true, _) if signal != Signal::Traces => bail!("log records are read as protobuf only"),
        (true, _) => of_json(file)?,
        (false, Some(0)) => framed(file)?,
        (false, Some(10)) => vec![file.to_vec()],
        (false, None) => Vec::new(),
        (false, Some(_)) => bail!("neither JSON nor protobuf of OTLP"),
    };
    if signal != Signal::Traces {
        return Ok(requests);
    }
    let checked = requests.iter().enumerate().map(|(number, request)| {
        let checked = check::check(request).with_context(|| format!("request {}", number + 1))?;
        match checked.cut_out {
            Some(cut_out) => bail!("request {}: no receiver takes a span of it: {}", number + 1, cut_out.first),
            None => Ok(checked.payload.into_owned()),
        }
    });
    checked.collect()
}

fn of_json(file: &[u8]) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut texts = serde_json::Deserializer::from_slice(file).into_iter::<IgnoredAny>();
    let (mut requests, mut start) = (Vec::new(), 0);
    while let Some(text) = texts.next() {
        text?;
        let end = texts.byte_offset();
        let mut request = Vec::new();
        from_json::traces(&file[start..end], &mut request)
            .with_context(|| format!("request {}", requests.len() + 1))?;
        requests.push(request);
        start = end;
    }
    Ok(requests)
}

fn framed(mut file: &[u8]) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut requests = Vec::new();
    while let Some((length, rest)) = file.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length))?;
        let (request, rest) = rest.split_at_checked(length).context("the last request is cut off")?;
        requests.push(request.to_vec());
        file = rest;
    }
    match file {
        [] => Ok(requests),
        _ => bail!("the last request is cut off"),
    }
}

/// A payload as one line of JSON, without the end of the line.
pub(super) fn line(signal: Signal, payload: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    json::encode(signal, &[payload], &mut text);
    text
}

/// A payload as JSON that people read and compare.
pub(super) fn pretty(signal: Signal, payload: &[u8]) -> anyhow::Result<String> {
    let value: serde_json::Value = serde_json::from_slice(&line(signal, payload))?;
    Ok(format!("{value:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn requests_are_read_in_every_form_that_files_have() {
        let payload = sample::batch();
        let text = line(Signal::Traces, &payload);
        let spaced = pretty(Signal::Traces, &payload).unwrap().into_bytes();
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let framed = [&length[..], &payload, &length, &payload].concat();
        for (file, count) in [
            (payload.clone(), 1),
            (text.clone(), 1),
            ([&text[..], b"\n", &spaced].concat(), 2),
            (framed.clone(), 2),
            (Vec::new(), 0),
        ] {
            let read = requests(Signal::Traces, &file).unwrap();
            assert_eq!(read.len(), count);
            assert!(read.iter().all(|request| pretty(Signal::Traces, request).unwrap().as_bytes() == spaced));
        }
        let cut = &framed[..framed.len() - 1];
        assert!(requests(Signal::Traces, cut).unwrap_err().to_string().contains("cut off"));
    }

    #[test]
    fn what_is_no_request_is_refused_with_its_number() {
        let said = |file: &[u8]| format!("{:#}", requests(Signal::Traces, file).unwrap_err());
        assert!(said(b"hello").contains("neither"));
        assert!(said(b"{\"resourceSpans\":[]} {\"resourceSpans\":7}").contains("request 2"));
        let bad = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"00","spanId":"1"}]}]}]}"#;
        assert!(said(bad).contains("request 1: no receiver takes"), "{}", said(bad));
    }
}
