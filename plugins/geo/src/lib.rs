//! Says where a client is, from the operator's table of networks.
//!
//! The host calls once for each address that it has not seen, remembers the answer, and so does the whole batch here ask the
//! table once. A row of the table is found under the network of 24 bits, as `10.1.2.0/24`.

use millrace_plugin::host::Table;
use millrace_plugin::prelude::*;

#[derive(Fields)]
struct Row<'b> {
    #[field("client.address")]
    address: Text<'b>,
    #[field("geo.country.iso_code")]
    country: Text<'b, Write>,
    #[field("geo.locality.name")]
    city: Text<'b, Write>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The name of the table; its columns are `network` (the key), `country`, `city`.
    table: String,
}

/// A row of the table.
#[derive(Deserialize)]
struct Place {
    country: String,
    city: String,
}

struct Geo {
    networks: Table,
}

impl Plugin for Geo {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self { networks: Table::open(&config.table)? })
    }
}

#[enrich]
impl Enrich for Geo {
    type Row<'b> = Row<'b>;

    fn batch<'b>(&mut self, rows: &mut Rows<'b, Row<'b>>, _: &mut Extra) -> Result<(), String> {
        let networks = rows.fields.address.cells().map(|(_, address)| network(address)).collect::<Vec<_>>();
        let mut places = self.networks.get::<Place>(&networks).into_iter();
        while rows.advance().is_some() {
            if rows.fields.address.get().is_none() {
                continue;
            }
            // Both were made from the addresses, in order.
            let Some(Some(place)) = places.next() else { continue };
            rows.fields.country.set(&place.country);
            rows.fields.city.set(&place.city);
        }
        Ok(())
    }
}

/// The network of an address of four numbers; what is none has no network in the table either.
fn network(address: &str) -> String {
    match address.rsplit_once('.') {
        Some((start, _)) => format!("{start}.0/24"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_networks_have_a_place() {
        testing::host::set_table("networks", [("10.1.2.0/24", r#"{ "country": "DE", "city": "Berlin" }"#)]);
        let mut plugin = testing::configured::<Geo>(r#"{ "table": "networks" }"#).unwrap();
        let batch = testing::Batch::new()
            .row([("client.address", "10.9.9.9")])
            .row([("other", "x")])
            .row([("client.address", "10.1.2.77")])
            .row([("client.address", "::1")]);
        let after = testing::enrich(&mut plugin, &batch).unwrap();
        let cities = [0, 1, 2, 3].map(|row| after.text(row, "geo.locality.name"));
        assert_eq!(cities, [None, None, Some("Berlin"), None]);
        assert_eq!(after.text(2, "geo.country.iso_code"), Some("DE"));
    }

    #[test]
    fn a_table_that_is_not_there_is_named() {
        assert!(testing::configured::<Geo>(r#"{ "table": "nets" }"#).is_err_and(|error| error.contains("nets")));
    }
}
