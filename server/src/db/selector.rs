//! Turns a selector into SQL over a JSONB column of labels. What people wrote only ever becomes a parameter.

use ota_domain::{Selector, selector::Requirement};
use sqlx::{Postgres, QueryBuilder};

/// Adds `AND …` for each part of the selector; `column` holds the labels and is ours, never the caller's.
pub fn push(query: &mut QueryBuilder<Postgres>, column: &'static str, selector: &Selector) {
    for requirement in selector.requirements() {
        match requirement {
            // Containment is what the GIN index on labels answers.
            Requirement::In(key, values) => {
                query.push(" AND (");
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        query.push(" OR ");
                    }
                    query.push(column).push(" @> ").push_bind(serde_json::json!({ key: value }));
                }
                query.push(")");
            }
            Requirement::NotIn(key, values) => {
                let values: Vec<&String> = values.iter().collect();
                query.push(" AND COALESCE(").push(column).push(" ->> ").push_bind(key.clone()).push(" <> ALL(");
                query.push_bind(values.into_iter().cloned().collect::<Vec<String>>()).push("), TRUE)");
            }
            Requirement::Exists(key) => {
                query.push(" AND ").push(column).push(" ? ").push_bind(key.clone());
            }
            Requirement::Absent(key) => {
                query.push(" AND NOT ").push(column).push(" ? ").push_bind(key.clone());
            }
        }
    }
}
