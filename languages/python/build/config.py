
import wit_world.imports.wasi_config_store_0_2_0_rc_1 as config
