package com.kerwin.gray.loadbalancer;

/** The status of the request that this thread serves. */
final class GrayFlagRequestHolder {
    private static final ThreadLocal<GrayStatusEnum> TAG = new ThreadLocal<>();

    private GrayFlagRequestHolder() {}

    static void setGrayTag(GrayStatusEnum tag) {
        TAG.set(tag);
    }

    static GrayStatusEnum getGrayTag() {
        return TAG.get();
    }

    static void remove() {
        TAG.remove();
    }
}
