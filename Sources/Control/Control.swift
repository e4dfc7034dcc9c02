// Control: the operator's call table, served on the control socket.
//
// Owns:   the methods (Methods.swift lists them all), their arguments and results as JSON, and who may call them.
// Never:  decides about apps (Supervision does) or reads a file an operator names: the client reads and sends bytes.
// Next:   Methods.swift (the table), Apply.swift (`up`), Reporting.swift (values as JSON).
