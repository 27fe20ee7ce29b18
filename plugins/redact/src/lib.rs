//! Hides what must not be stored: secrets in command lines and URLs, and who the user is.
//!
//! `--password X`, `/pwd:X`, `?token=X` and their like keep the name and lose the value. A user keeps the domain. Process
//! resources of OpenTelemetry's SDKs have command line and owner on the resource: those are hidden too, once a resource.

use millrace_plugin::prelude::*;

#[derive(Fields)]
struct Row<'b> {
    #[field("process.command_line")]
    command: AnyText<'b, Edit>,
    #[field("user.name")]
    user: AnyText<'b, Edit>,
    #[field("url.full")]
    url: AnyText<'b, Edit>,
    #[field(resource, "process.command_line")]
    process_command: AnyText<'b, Edit>,
    #[field(resource, "process.owner")]
    process_owner: AnyText<'b, Edit>,
}

/// What the operator may write.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Names of arguments and parameters whose values are hidden, in any case.
    secrets: Vec<String>,
    /// Users that are nobody's name.
    keep_users: Vec<String>,
    /// What stands in the place of a value.
    marker: String,
}

impl Default for Config {
    fn default() -> Self {
        let list = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Self {
            secrets: list(&["password", "passwd", "pwd", "pass", "token", "secret", "apikey", "api-key", "access-key"]),
            keep_users: list(&["SYSTEM", "LOCAL SERVICE", "NETWORK SERVICE", "root"]),
            marker: "***".to_owned(),
        }
    }
}

struct Redact {
    config: Config,
    /// How the names of secrets begin: of most words in a command line no more is looked at.
    beginnings: Beginnings,
    /// The text being put together, kept so that no row allocates.
    text: String,
}

impl Plugin for Redact {
    type Config = Config;
    const SIGNALS: &'static [Signal] = &[Signal::Span, Signal::Log];
    const FAIL_CLOSED: bool = true;

    fn new(mut config: Config) -> Result<Self, String> {
        if config.secrets.iter().any(String::is_empty) {
            return Err("an empty name in secrets would hide everything".to_owned());
        }
        config.secrets.iter_mut().for_each(|name| name.make_ascii_lowercase());
        Ok(Self { beginnings: Beginnings::of(&config.secrets), config, text: String::new() })
    }
}

#[transform]
impl Transform for Redact {
    type Row<'b> = Row<'b>;

    fn resource(&mut self, row: &mut Row) {
        self.hide_secrets(&mut row.process_command, ARGUMENT);
        self.hide_user(&mut row.process_owner);
    }

    fn row(&mut self, row: &mut Row) -> Verdict {
        self.hide_secrets(&mut row.command, ARGUMENT);
        self.hide_secrets(&mut row.url, PARAMETER);
        self.hide_user(&mut row.user);
        Verdict::Keep
    }
}

/// What a name of a secret stands behind in a command line.
const ARGUMENT: [u8; 2] = *b"-/";
/// And in a URL.
const PARAMETER: [u8; 2] = *b"?&";

impl Redact {
    fn hide_secrets(&mut self, field: &mut AnyText<'_, Edit>, before: [u8; 2]) {
        let Some(text) = field.get() else { return };
        self.text.clear();
        let mut copied = 0;
        for at in memchr::memchr2_iter(before[0], before[1], text.as_bytes()).map(|mark| mark + 1) {
            if at <= copied || !self.beginnings.may_begin(&text.as_bytes()[at..]) {
                continue;
            }
            let Some((start, end)) = secret(&self.config.secrets, text, at) else { continue };
            self.text.push_str(&text[copied..start]);
            self.text.push_str(&self.config.marker);
            copied = end;
        }
        if copied > 0 {
            self.text.push_str(&text[copied..]);
            field.set(&self.text);
        }
    }

    fn hide_user(&self, field: &mut AnyText<'_, Edit>) {
        let Some(user) = field.get() else { return };
        let (domain, name) = user.split_at(memchr::memrchr(b'\\', user.as_bytes()).map_or(0, |at| at + 1));
        if !self.config.keep_users.iter().any(|kept| kept.eq_ignore_ascii_case(name)) {
            field.set_parts(&[domain, &self.config.marker]);
        }
    }
}

/// Pairs of letters in any case; a bit for several each.
struct Beginnings(u64);

impl Beginnings {
    fn of(names: &[String]) -> Self {
        let pairs = names.iter().flat_map(|name| match *name.as_bytes() {
            [first, second, ..] => vec![[first, second]],
            [first] => NAME_ENDS.map(|end| [first, end]).to_vec(),
            [] => Vec::new(),
        });
        Self(pairs.fold(0, |bits, pair| bits | Self::bit(pair)))
    }

    #[inline(always)]
    fn may_begin(&self, text: &[u8]) -> bool {
        text.first_chunk().is_some_and(|pair| self.0 & Self::bit(*pair) != 0)
    }

    #[inline(always)]
    fn bit([first, second]: [u8; 2]) -> u64 {
        1 << (u32::from(first | 0x20) * 7 + u32::from(second | 0x20) & 63)
    }
}

/// What stands between the name of a secret and its value.
const NAME_ENDS: [u8; 3] = *b"=: ";

/// Where the value begins and ends whose name begins at `at`, if it is one of these, which are in small letters.
fn secret(secrets: &[String], text: &str, at: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let initial = bytes.get(at)?.to_ascii_lowercase();
    let name_end = secrets.iter().filter(|name| name.as_bytes()[0] == initial).find_map(|name| {
        let end = at + name.len();
        let is_here = bytes.get(at..end)?.eq_ignore_ascii_case(name.as_bytes());
        (is_here && bytes.get(end).is_some_and(|end| NAME_ENDS.contains(end))).then_some(end)
    })?;
    let start = name_end + 1;
    let (start, end_mark) = match bytes.get(start) {
        Some(quote @ (b'"' | b'\'')) => (start + 1, [*quote, *quote]),
        _ => (start, *b" &"),
    };
    let length = memchr::memchr2(end_mark[0], end_mark[1], &bytes[start..]).unwrap_or(bytes.len() - start);
    (length > 0).then_some((start, start + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(batch: &testing::Batch) -> testing::After {
        let mut plugin = testing::configured::<Redact>("{}").unwrap();
        testing::transform(&mut plugin, batch).unwrap()
    }

    #[test]
    fn values_of_secrets_are_hidden_and_nothing_else() {
        let cases = [
            ("net use x: /user:bob /password:hunter2 /y", "net use x: /user:bob /password:*** /y"),
            ("tool --token abc --file a-pwd.txt", "tool --token *** --file a-pwd.txt"),
            ("tool --Password=\"two words\" -v", "tool --Password=\"***\" -v"),
            ("curl -pwd=x -TOKEN:y", "curl -pwd=*** -TOKEN:***"),
            ("tool --password", "tool --password"),
            ("tool --passwords=1", "tool --passwords=1"),
            ("--secret grüße", "--secret ***"),
            ("", ""),
            ("-token a-pwd=b -pwd=c", "-token *** -pwd=***"),
            ("-token 'a -pwd=b' /pass:d", "-token '***' /pass:***"),
            ("-pass=-", "-pass=***"),
        ];
        for (command, expected) in cases {
            let after = after(&testing::Batch::new().row([("process.command_line", command)]));
            assert_eq!(after.text(0, "process.command_line"), Some(expected), "{command}");
        }
        let url = "https://shop/?id=7&api-key=k&x=1";
        let after = after(&testing::Batch::new().row([("url.full", url)]));
        assert_eq!(after.text(0, "url.full"), Some("https://shop/?id=7&api-key=***&x=1"));
    }

    #[test]
    fn users_lose_their_name_and_accounts_of_the_system_do_not() {
        let batch = testing::Batch::new()
            .resource([("process.owner", "alice"), ("process.command_line", "app --token t")])
            .row([("user.name", "CORP\\bob")])
            .row([("user.name", "NT AUTHORITY\\SYSTEM")])
            .row([("other", "x")]);
        let after = after(&batch);
        assert_eq!(after.text(0, "user.name"), Some("CORP\\***"));
        assert_eq!(after.text(1, "user.name"), Some("NT AUTHORITY\\SYSTEM"));
        assert_eq!(after.text(2, "user.name"), None);
        assert_eq!(after.resource_text(2, "process.owner"), Some("***"));
        assert_eq!(after.resource_text(2, "process.command_line"), Some("app --token ***"));
    }

    #[test]
    fn a_secret_may_have_a_name_of_one_letter() {
        let mut plugin = testing::configured::<Redact>(r#"{ "secrets": ["P"] }"#).unwrap();
        let batch = testing::Batch::new().row([("process.command_line", "mysql -p=x -P y -port 7 -q")]);
        let after = testing::transform(&mut plugin, &batch).unwrap();
        assert_eq!(after.text(0, "process.command_line"), Some("mysql -p=*** -P *** -port 7 -q"));
    }

    #[test]
    fn a_wrong_configuration_is_refused() {
        assert!(testing::configured::<Redact>(r#"{ "secret": [] }"#).is_err_and(|error| error.contains("secret")));
        assert!(testing::configured::<Redact>(r#"{ "secrets": [""] }"#).is_err());
    }
}
