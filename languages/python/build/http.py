

class http:
    import wit_world.imports.wasi_http_types_0_2_12 as types
    from wit_world.imports.wasi_http_outgoing_handler_0_2_12 import handle
