//! The messages that are worth a struct: the answers of OTLP/HTTP, on the cold path only.
//!
//! Requests never become structs here. Fields and numbers follow `opentelemetry-proto` 1.x and `google/rpc/status.proto`;
//! the JSON forms follow OTLP's JSON mapping (lowerCamelCase, 64-bit integers as strings).

use prost::Message;

/// `google.rpc.Status`: the body of every refused OTLP request.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// A `google.rpc.Code`.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For the developer at the other end.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// `ExportTraceServiceResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct ExportTraceServiceResponse {
    /// Unset when every span was taken.
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<ExportTracePartialSuccess>,
}

/// `ExportTracePartialSuccess`.
#[derive(Clone, PartialEq, Message)]
pub struct ExportTracePartialSuccess {
    /// Spans that were not taken and must not be sent again.
    #[prost(int64, tag = "1")]
    pub rejected_spans: i64,
    /// Why.
    #[prost(string, tag = "2")]
    pub error_message: String,
}

impl Status {
    /// The answer in JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::json!({ "code": self.code, "message": self.message }).to_string().into_bytes()
    }
}

impl ExportTraceServiceResponse {
    /// The answer in JSON; `{}` when every span was taken.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let Some(partial) = &self.partial_success else { return b"{}".to_vec() };
        serde_json::json!({
            "partialSuccess": {
                "rejectedSpans": partial.rejected_spans.to_string(),
                "errorMessage": partial.error_message,
            }
        })
        .to_string()
        .into_bytes()
    }
}
