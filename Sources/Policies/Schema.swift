package import Model

/// The JSON Schema (draft 2020-12) of a policy file: what `policy schema` prints and `policies/policy.schema.json` holds.
package func schemaDocument() -> JSONValue {
  var properties = JSONObject()
  for field in fieldTable { properties[field.key] = described(field.form, field.schemaDescription) }
  for alias in aliases { properties[alias.key] = described(alias.form, "The same as \(alias.canonical): \(alias.doc)") }
  properties["exePath"] = described(.text(), "Older manifests: the program of entry")
  properties["arguments"] = described(.command, "Older manifests: the arguments of entry")
  properties["compat"] = described(.word(["seed"]), "Older manifests: presets as they were there")
  for key in labelKeys { properties[key] = .object(["description": "Older manifests: kept as a label"]) }
  return closedObject(title: "A policy of appsupervisor: one app", properties, required: ["id"])
}

func closedObject(title: String, _ properties: JSONObject, required: [String]) -> JSONValue {
  .object([
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": .string(title),
    "type": "object",
    "required": required.isEmpty ? nil : .strings(required),
    "properties": .object(properties),
    "patternProperties": .object(["^x-": true]),
    "additionalProperties": false,
  ])
}

extension Field {
  fileprivate var schemaDescription: String {
    guard case .notYet = status else { return doc }
    return "\(doc). Not supported yet"
  }
}

/// `form`'s schema with a description in front.
func described(_ form: Form, _ doc: String) -> JSONValue {
  var object = JSONObject()
  object["description"] = .string(doc)
  if case .object(let members) = form.schema { for (key, value) in members { object[key] = value } }
  return .object(object)
}

/// A value given through a variable is text until it is read.
private let variable = "\\$"

extension Form {
  /// This form as JSON Schema. Sizes of lists and texts are left to the reader.
  var schema: JSONValue {
    switch self {
    case .text: .object(["type": ["string", "number", "boolean"]])
    case .checked(_, let pattern, _):
      .object(["type": ["string", "number"], "pattern": pattern.map { .string("(\($0))|\(variable)") }])
    case .word(let words):
      .object([
        "anyOf": [.object(["enum": .strings(words)]), .object(["type": "string", "pattern": .string(variable)])]
      ])
    case .boolean: .object(["type": ["boolean", "string"], "pattern": .string("^(true|false)$|\(variable)")])
    case .whole(let range):
      .object([
        "type": ["integer", "string"], "minimum": .integer(range.lowerBound),
        "maximum": range.upperBound == .max ? nil : .integer(range.upperBound),
        "pattern": .string("^-?[0-9]+$|\(variable)"),
      ])
    case .decimal(let range):
      .object([
        "type": ["number", "string"], "minimum": .decimal(range.lowerBound), "maximum": .decimal(range.upperBound),
        "pattern": .string("^[0-9]+([.][0-9]+)?$|\(variable)"),
      ])
    case .size:
      .object([
        "type": ["string", "integer"], "minimum": 0,
        "pattern": .string("^[0-9]+([.][0-9]+)?([bB]|[kKmMgGtT][bB]?)?$|\(variable)"),
      ])
    case .duration:
      .object([
        "type": ["string", "integer"], "maximum": 0,
        "pattern": .string("^(0|([0-9]+([.][0-9]+)?(d|h|m|s|ms|us|µs|ns))+)$|\(variable)"),
      ])
    case .mode: .object(["type": ["string", "integer"], "pattern": .string("^(0o)?[0-7]{1,5}$|\(variable)")])
    case .list(let form, let most): .object(["type": "array", "items": form.schema, "maxItems": .count(most)])
    case .map(let form, let most):
      .object(["type": "object", "additionalProperties": form.schema, "maxProperties": .count(most)])
    case .object(let parts): Self.schema(of: parts)
    case .either(let forms, _): .object(["anyOf": .array(forms.map(\.schema))])
    case .orNothing(let form): .object(["anyOf": [form.schema, .object(["type": "null"])]])
    case .anything: .object([:])
    }
  }

  private static func schema(of parts: [Part]) -> JSONValue {
    var properties = JSONObject()
    for part in parts {
      properties[part.key] = described(part.form, part.later == nil ? part.doc : "\(part.doc). Not supported yet")
    }
    let required = parts.filter(\.required).map(\.key)
    return .object([
      "type": "object", "properties": .object(properties), "required": required.isEmpty ? nil : .strings(required),
      "patternProperties": .object(["^x-": true]), "additionalProperties": false,
    ])
  }
}
