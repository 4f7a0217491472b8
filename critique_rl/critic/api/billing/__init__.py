"""What a request is billed: reports of servers, the first bill, and a count that no copy lacks."""
