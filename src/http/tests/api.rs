//! The OpenAPI document against the routes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::router::routes;
use super::*;

async fn document() -> Value {
    get(&server(Settings::default()), "/openapi.json").await.json()
}

fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_document_and_the_routes_are_the_same() {
    let document = document().await;
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "post", "put", "patch", "delete"] {
            if item.get(method).is_some() {
                documented.insert((method.to_uppercase(), path.clone()));
            }
        }
    }
    let routed = routes().iter().map(|route| (route.method.to_string(), route.path.to_owned())).collect();
    assert_eq!(documented, routed);
}

#[tokio::test]
async fn every_reference_leads_somewhere() {
    let document = document().await;
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 20, "{found:?}");
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn every_operation_tells_its_answers_and_its_key() {
    let document = document().await;
    let mut ids = BTreeSet::new();
    for route in routes() {
        let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        let place = format!("{} {}", route.method, route.path);
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{place}");
        assert!(operation["summary"].is_string() && operation["tags"][0].is_string(), "{place}");
        let answers = operation["responses"].as_object().unwrap();
        let succeeds = answers.contains_key("200") || answers.contains_key("202");
        assert!(succeeds && answers.contains_key("500"), "{place}");
        let guarded = route.access != super::super::keys::Access::Open;
        assert_eq!(answers.contains_key("401"), guarded, "{place}");
        assert_eq!(operation["security"].is_array(), guarded, "{place}");
        if operation.get("requestBody").is_some() {
            for status in ["400", "413", "415", "422"] {
                assert!(answers.contains_key(status), "{place} {status}");
            }
        }
    }
    for path in
        ["/documents", "/feedback", "/admin/refresh", "/admin/jobs/{id}/resume", "/admin/generations/{number}/activate"]
    {
        assert!(document["paths"][path]["post"]["responses"].get("507").is_some(), "{path}");
    }
    let schemes = document["components"]["securitySchemes"].as_object().unwrap();
    assert!(schemes.values().all(|scheme| scheme["scheme"] == "bearer") && schemes.len() == 3);
}
