module handlers/{{name}}

go 1.25
