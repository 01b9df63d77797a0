module poll-go

go 1.25
