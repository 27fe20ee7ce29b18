//! What fields give and take, row by row, through batches of the testing module, which refuses what the host would refuse.

use millrace_plugin::testing::Value;
use millrace_plugin::{Level, prelude::*};

#[derive(Fields)]
struct Row<'b> {
    #[field("text")]
    text: Text<'b, Edit>,
    #[field("any")]
    any: AnyText<'b>,
    #[field("json")]
    json: Json<'b, Edit>,
    #[field("bytes")]
    bytes: Bytes<'b>,
    #[field("integer")]
    integer: Integer<'b, Edit>,
    #[field("float")]
    float: Float<'b, Edit>,
    #[field("boolean")]
    boolean: Boolean<'b, Edit>,
    #[field(resource, "host")]
    host: Text<'b, Edit>,
    #[field(scope, "library")]
    library: Text<'b, Edit>,
    #[field(intrinsic, "name")]
    name: Text<'b, Write>,
}

/// Does to each row what the function says.
struct Each(Box<dyn FnMut(&mut Row<'_>) -> Verdict>);

impl Plugin for Each {
    type Config = millrace_plugin::NoConfig;

    fn new(_: Self::Config) -> Result<Self, String> {
        Ok(Self(Box::new(|_| Verdict::Keep)))
    }
}

#[transform]
impl Transform for Each {
    type Row<'b> = Row<'b>;

    fn row(&mut self, row: &mut Row) -> Verdict {
        (self.0)(row)
    }
}

fn each(batch: &testing::Batch, f: impl FnMut(&mut Row<'_>) + 'static) -> testing::After {
    let mut f = f;
    let mut plugin = Each(Box::new(move |row| {
        f(row);
        Verdict::Keep
    }));
    testing::transform(&mut plugin, batch).expect("the plugin and its patch are right")
}

#[test]
fn the_last_word_on_a_cell_counts() {
    let batch = testing::Batch::new().row([("text", "a")]).row([("text", "b")]).row([("text", "c")]);
    let after = each(&batch, |row| {
        row.text.set("first");
        row.integer.set(1);
        row.boolean.unset();
        match row.text.get() {
            Some("a") => row.text.set("second"),
            Some("b") => {
                row.text.unset();
                row.text.set_parts(&["x", "y"]);
                row.integer.unset();
            }
            _ => {
                row.text.unset();
                row.integer.set(3);
                row.boolean.set(true);
            }
        }
    });
    assert_eq!([0, 1, 2].map(|row| after.text(row, "text")), [Some("second"), Some("xy"), None]);
    let integers = [0, 1, 2].map(|row| after.get(row, Level::Record, "integer").cloned());
    assert_eq!(integers, [Some(1.into()), None, Some(3.into())]);
    assert_eq!(after.get(2, Level::Record, "boolean"), Some(&true.into()));
}

#[test]
fn a_value_of_another_kind_is_not_given_but_as_any() {
    let batch = testing::Batch::new()
        .row([("text", 5), ("any", 5), ("json", 5), ("integer", 5), ("float", 5)])
        .row([("text", "t"), ("any", "t"), ("json", "t"), ("integer", "t"), ("bytes", "t")])
        .row([("float", 0.5)])
        .row([("boolean", true), ("any", true)]);
    let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let log = seen.clone();
    each(&batch, move |row| {
        let text = (row.text.get(), row.any.get(), row.json.get(), row.bytes.get().map(<[u8]>::len));
        log.borrow_mut().push(format!("{text:?} {:?}", (row.integer.get(), row.float.get(), row.boolean.get())));
    });
    assert_eq!(
        *seen.borrow(),
        [
            r#"(None, Some("5"), Some("5"), None) (Some(5), Some(5.0), None)"#,
            r#"(Some("t"), Some("t"), Some("\"t\""), Some(1)) (None, None, None)"#,
            "(None, None, None, None) (None, Some(0.5), None)",
            r#"(None, Some("true"), None, None) (None, None, Some(true))"#,
        ]
    );
}

#[test]
fn a_resource_keeps_its_value_and_is_edited_once() {
    let batch = testing::Batch::new()
        .resource([("host", "h1")])
        .scope([("library", "l1")])
        .row([("text", "a")])
        .row([("text", "b")])
        .scope([("library", "l2")])
        .row([("text", "c")])
        .resource([("other", "x")])
        .row([("text", "d")])
        .resource([("host", "h3")])
        .row([("text", "e")]);
    let after = each(&batch, |row| {
        let both = [row.host.get().unwrap_or("-"), row.library.get().unwrap_or("-")].concat();
        row.text.set(&both);
        row.host.set_parts(&[row.host.get().unwrap_or("none"), "!"]);
        if row.library.get() == Some("l2") {
            row.library.unset();
        }
        row.name.set("n");
    });
    let texts: Vec<_> = (0..5).map(|row| after.text(row, "text").unwrap()).collect();
    assert_eq!(texts, ["h1l1", "h1l1", "h1l2", "--", "h3-"]);
    let hosts: Vec<_> = (0..5).map(|row| after.resource_text(row, "host").unwrap()).collect();
    assert_eq!(hosts, ["h1!", "h1!", "h1!", "none!", "h3!"]);
    assert_eq!(after.get(1, Level::Scope, "library"), Some(&"l1".into()));
    assert_eq!(after.get(2, Level::Scope, "library"), None);
    assert_eq!(after.get(4, Level::Intrinsic, "name"), Some(&"n".into()));
}

#[test]
fn written_json_is_checked_as_the_host_checks_it() {
    let batch = testing::Batch::new().row::<Value, 1>([("json", Value::Json("[1,2]".to_owned()))]);
    let after = each(&batch, |row| {
        assert_eq!(row.json.parse::<Vec<i64>>(), Some(vec![1, 2]));
        row.json.set("{\"a\":null}");
        row.float.set(1.5);
    });
    assert_eq!(after.get(0, Level::Record, "json"), Some(&Value::Json("{\"a\":null}".to_owned())));
    assert_eq!(after.get(0, Level::Record, "float"), Some(&1.5.into()));
    let mut bad = Each(Box::new(|row| {
        row.json.set("{");
        Verdict::Keep
    }));
    assert!(testing::transform(&mut bad, &batch).is_err_and(|error| error.starts_with("json")));
}

/// Uses what only the whole batch has.
struct Whole;

impl Plugin for Whole {
    type Config = millrace_plugin::NoConfig;

    fn new(_: Self::Config) -> Result<Self, String> {
        Ok(Self)
    }
}

#[transform]
impl Transform for Whole {
    type Row<'b> = Row<'b>;

    fn batch<'b>(&mut self, batch: &mut Batch<'b, Row<'b>>) -> Result<(), String> {
        assert_eq!(batch.rows.signal, Signal::Log);
        let undeclared = batch.all.text(Level::Record, "undeclared")?;
        assert_eq!(batch.all.keys(Level::Record), ["text", "undeclared"]);
        let texts: Vec<_> = batch.rows.fields.text.cells().collect();
        assert_eq!(texts, [(0, "a"), (2, "c")]);
        while let Some(at) = batch.rows.advance() {
            batch.extra.set(at.row, &format!("key.{}", at.row % 2), "first")?;
            batch.extra.set(at.row, &format!("key.{}", at.row % 2), "last")?;
            if undeclared.contains(&(at.row, "7".to_owned())) {
                batch.drop_row(&at);
            }
        }
        Ok(())
    }
}

#[test]
fn a_whole_batch_has_columns_other_keys_and_what_was_not_declared() {
    let batch = testing::Batch::logs().row([("text", "a")]).row([("undeclared", 7)]).row([("text", "c")]);
    let after = testing::transform(&mut Whole, &batch).unwrap();
    assert_eq!([0, 1, 2].map(|row| after.is_dropped(row)), [false, true, false]);
    assert_eq!(
        (after.text(0, "key.0"), after.text(1, "key.1"), after.text(2, "key.1")),
        (Some("last"), Some("last"), None)
    );
}

#[test]
fn host_functions_have_stand_ins() {
    let counter = host::Counter::new("cuts").unwrap();
    counter.add(2);
    host::Counter::new("cuts").unwrap().add(3);
    host::log(Severity::Warning, "said");
    host::state::set("k", b"v", 0).unwrap();
    testing::host::set_batch_time_ns(9);
    assert_eq!((testing::host::counted("cuts"), host::batch_time_ns()), (5, 9));
    assert_eq!(testing::host::lines(), [(3, "said".to_owned())]);
    assert_eq!(host::state::get("k").as_deref(), Some(&b"v"[..]));
    host::state::delete("k");
    assert_eq!(host::state::get("k"), None);
    assert!(host::Table::open("none").is_err());
}
