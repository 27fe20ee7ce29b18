//! Says which department a host belongs to, by the beginning of its name.
//!
//! Works on the resource alone: a batch of spans of one host costs one look, however many spans there are.

use millrace_plugin::prelude::*;

#[derive(Fields)]
struct Row<'b> {
    #[field(resource, "host.name")]
    host: Text<'b>,
    #[field(resource, "department")]
    department: Text<'b, Write>,
}

/// The first rule whose beginning fits decides.
#[derive(Plugin, Deserialize)]
#[plugin(signals(span, log))]
#[serde(deny_unknown_fields)]
struct Department {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    begins: String,
    department: String,
}

#[transform]
impl Transform for Department {
    type Row<'b> = Row<'b>;

    fn resource(&mut self, row: &mut Row) {
        let Some(host) = row.host.get() else { return };
        if let Some(rule) = self.rules.iter().find(|rule| begins(host, &rule.begins)) {
            row.department.set(&rule.department);
        }
    }
}

/// Names of hosts are the same in any case.
fn begins(host: &str, beginning: &str) -> bool {
    host.get(..beginning.len()).is_some_and(|start| start.eq_ignore_ascii_case(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_gets_the_department_of_its_host() {
        let config = r#"{ "rules": [
            { "begins": "FIN-", "department": "Finance" }, { "begins": "F", "department": "Other" }
        ] }"#;
        let mut plugin = testing::configured::<Department>(config).unwrap();
        let batch = testing::Batch::new()
            .resource([("host.name", "fin-0815")])
            .row([("a", 1)])
            .row([("a", 2)])
            .resource([("host.name", "F2")])
            .row([("a", 3)])
            .resource([("host.name", "äöü")])
            .row([("a", 4)]);
        let after = testing::transform(&mut plugin, &batch).unwrap();
        let departments: Vec<_> = (0..4).map(|row| after.resource_text(row, "department")).collect();
        assert_eq!(departments, [Some("Finance"), Some("Finance"), Some("Other"), None]);
    }

    #[test]
    fn rules_are_needed() {
        assert!(testing::configured::<Department>("").is_err_and(|error| error.contains("rules")));
    }
}
