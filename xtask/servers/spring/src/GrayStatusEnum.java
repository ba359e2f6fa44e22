package com.kerwin.gray.loadbalancer;

/** Which versions a request may reach, as the design's starter has it. */
enum GrayStatusEnum {
    ALL,
    PROD,
    GRAY;

    static GrayStatusEnum getByVal(String val) {
        for (GrayStatusEnum status : values()) {
            if (status.name().equals(val)) {
                return status;
            }
        }
        return null;
    }
}
