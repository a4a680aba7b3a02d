//! What a node knows by name and tells of each in a row: listed, shown one by one, and told to do something.

use serde_json::json;

use crate::{
    client::{Call, Client, Target},
    exit::Failure,
    output::{Column, Format, cell, print},
    pages::{HowMany, list},
};

/// A collection of the node's, as a table of `N` columns.
pub(crate) struct Collection<const N: usize> {
    /// Its name, in addresses and in answers.
    pub(crate) name: &'static str,
    /// A heading for each column.
    pub(crate) columns: [Column; N],
    /// The member of an item that stands in each column.
    pub(crate) members: [&'static str; N],
}

impl<const N: usize> Collection<N> {
    /// The address of what is called `item`, or of something `further` about it.
    pub(crate) fn at(&self, item: &str, further: Option<&str>) -> Target {
        let segments: Vec<&str> = ["v1", self.name, item].into_iter().chain(further).collect();
        Target::path(&segments)
    }

    /// Prints all of it.
    pub(crate) async fn list(self, client: &Client, how_many: HowMany, format: Format) -> Result<(), Failure> {
        let all = list(client, Target::path(&["v1", self.name]), self.name, how_many).await?;
        let whole = json!({ self.name: all });
        let members = self.members;
        print(&all, &whole, (self.columns, |item| members.map(|member| cell(&item[member]))), format)
    }

    /// Makes `call`, whose answer is one of its items, and prints that.
    pub(crate) async fn ask(self, client: &Client, call: &Call, format: Format) -> Result<(), Failure> {
        let item = client.call(call).await?.json(client.server())?;
        let members = self.members;
        let cells = |item: &serde_json::Value| members.map(|member| cell(&item[member]));
        print(std::slice::from_ref(&item), &item, (self.columns, cells), format)
    }
}
