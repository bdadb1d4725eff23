//! The REST API, one file a resource; problem details, keys, OpenAPI, the web page.
