// Policies: bytes of a policy file → a checked, effective Policy, or every error with line and column.
//
// Owns:   the table of fields (Field.swift, *Fields.swift) that parsing, messages, the JSON Schema, the canonical
//         document and the plan all come from; presets; rules between fields and between files; config.yaml's table.
// Never:  opens a file, knows whether something exists, or changes anything: bytes and values in, values out.
// Next:   Reading.swift (the way through), Form.swift (shapes), Rules.swift (what must hold), Plan.swift.
