// ProcessHosting
